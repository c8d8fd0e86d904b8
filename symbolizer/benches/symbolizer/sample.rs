//! Addresses in a guest, as a profile has them, and both who answer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;

use addr2line::Context;
use flamewalk_handler::code::CodeKind;
use flamewalk_symbolizer::{CodeAddress, CodeImage, GuestBinary, Symbolizer};
use gimli::{Dwarf, EndianSlice, LittleEndian, SectionId};
use object::read::elf::ElfFile64;
use object::{Endianness, Object, ObjectSection};
use wasmparser::{Parser, Payload};
use wasmtime::{Config, Engine, Strategy};
use wasmtime_environ::lookup_file_pos;
use wasmtime_environ::obj::ELF_WASMTIME_ADDRMAP;

type Reader<'data> = EndianSlice<'data, LittleEndian>;

/// `addr2line`, and what it has read.
pub(crate) type Addr2Line<'data> = Context<Reader<'data>>;

/// The sections that names and lines are read from; debuggers read more.
const SECTIONS: [SectionId; 5] = [
    SectionId::DebugAbbrev,
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugRanges,
    SectionId::DebugStr,
];

/// One address, in the terms of both.
#[derive(Clone, Copy)]
pub(crate) struct Address {
    in_image: CodeAddress,
    in_code_section: u64,
}

/// A guest and addresses in it.
pub(crate) struct Sample {
    binary: Arc<[u8]>,
    image: Arc<CodeImage>,
    /// The image's section that says which bytecode each instruction comes from.
    address_map: Vec<u8>,
    /// Bytes of DWARF, without what only debuggers read.
    pub(crate) dwarf_bytes: usize,
    /// Spread evenly over the guest's code.
    pub(crate) addresses: Vec<Address>,
    /// As many others, each in the same function as its counterpart.
    pub(crate) others: Vec<Address>,
}

impl Sample {
    pub(crate) fn of_sqlite(copies: usize, count: usize) -> Self {
        let path = flamewalk_guests::sqlite_copies(copies).expect("SQLite is there or can be built");
        let binary: Arc<[u8]> = fs::read(path).expect("the binary that was built").into();
        let mut config = Config::new();
        // In a fraction of the time that the optimizing compiler takes.
        config.strategy(Strategy::Winch);
        let engine = Engine::new(&config).expect("an engine for this machine");
        let image = engine.precompile_module(&binary).expect("the guest compiles");
        let elf = ElfFile64::<Endianness>::parse(image.as_slice()).expect("an image that Wasmtime wrote");
        let address_map = elf.section_by_name(ELF_WASMTIME_ADDRMAP).expect("an engine keeps it by default");
        let address_map = address_map.data().expect("an image that Wasmtime wrote").to_vec();
        let image = Arc::new(CodeImage::parse_without_dwarf(&image).expect("an image that Wasmtime wrote"));
        let dwarf_bytes = sections(&binary).iter().map(|(_, range)| range.len()).sum();
        let mut sample =
            Self { binary, image, address_map, dwarf_bytes, addresses: Vec::new(), others: Vec::new() };
        sample.choose(count);
        sample
    }

    fn choose(&mut self, count: usize) {
        let functions = self.image.functions().iter().filter(|function| function.kind == CodeKind::Guest);
        let functions: Vec<_> = functions.copied().collect();
        let code: usize = functions.iter().map(|function| function.length as usize).sum();
        let step = (code / count).max(1);
        let mut symbolizer = self.symbolizer();
        let code_start = code_start(&self.binary) as u64;
        let mut address = |offset: u32| {
            let in_image = CodeAddress::Instruction(offset);
            let bytecode = symbolizer.frames(in_image).last()?.bytecode_offset?;
            Some(Address { in_image, in_code_section: u64::from(bytecode) - code_start })
        };
        let mut next = step / 2;
        for function in functions {
            let length = function.length as usize;
            while next < length {
                let offset = function.start + next as u32;
                let other = function.start + (next + length) as u32 / 2;
                if let Some((one, other)) = address(offset).zip(address(other)) {
                    self.addresses.push(one);
                    self.others.push(other);
                }
                next += step;
            }
            next -= length;
        }
    }

    /// Of all addresses, one in the middle of the code.
    pub(crate) fn middle(&self) -> &[Address] {
        let middle = self.addresses.len() / 2;
        &self.addresses[middle..=middle]
    }

    /// A symbolizer that has read nothing yet.
    pub(crate) fn symbolizer(&self) -> Symbolizer {
        let binary = GuestBinary::from(Arc::clone(&self.binary));
        Symbolizer::new(Arc::clone(&self.image), "guest", Some(binary), None).expect("no separate symbols")
    }

    /// The binary, parsed, and an offset in it for each function that an address is in.
    pub(crate) fn bodies(&self) -> (GuestBinary, Vec<u32>) {
        let binary = GuestBinary::from(Arc::clone(&self.binary));
        let code_start = code_start(&self.binary) as u64;
        let offsets = self.addresses.iter().map(|address| (address.in_code_section + code_start) as u32);
        let body = |offset| binary.body_at(offset).expect("a valid guest").expect("code").range.start;
        let bodies: BTreeSet<u32> = offsets.map(body).collect();
        (binary, bodies.into_iter().collect())
    }

    /// The DWARF as `addr2line` reads it first.
    pub(crate) fn addr2line(&self) -> Addr2Line<'_> {
        let sections = sections(&self.binary);
        let dwarf = Dwarf::load(|id| {
            let range =
                sections.iter().find(|(known, _)| *known == id).map_or(0..0, |(_, range)| range.clone());
            Ok::<_, gimli::Error>(EndianSlice::new(&self.binary[range], LittleEndian))
        });
        Context::from_dwarf(dwarf.expect("loading cannot fail")).expect("sound DWARF")
    }

    /// Wasmtime's own look-up of where the addresses are in the binary.
    pub(crate) fn look_up_by_wasmtime(&self, addresses: &[Address]) {
        for address in addresses {
            black_box(lookup_file_pos(&self.address_map, address.in_image.offset_for_lookup() as usize));
        }
    }

    /// Bytes of the units that any of the addresses is in, and of their line programs.
    pub(crate) fn touched(&self, addresses: &[Address]) -> usize {
        let context = self.addr2line();
        let mut units = BTreeMap::new();
        for address in addresses {
            let found = context.find_dwarf_and_unit(address.in_code_section).skip_all_loads();
            let Some(unit) = found else { continue };
            let lines = unit.line_program.as_ref().map_or(0, |program| program.header().unit_length());
            let bytes = unit.header.length_including_self() + lines;
            units.insert(unit.header.debug_info_offset().map(|offset| offset.0), bytes);
        }
        units.values().sum()
    }
}

/// Asks a symbolizer for all frames.
pub(crate) fn ask_symbolizer(symbolizer: &mut Symbolizer, addresses: &[Address]) {
    for address in addresses {
        black_box(symbolizer.frames(address.in_image));
    }
}

/// Asks `addr2line` for all frames.
pub(crate) fn ask_addr2line(context: &Addr2Line<'_>, addresses: &[Address]) {
    for address in addresses {
        let frames = context.find_frames(address.in_code_section).skip_all_loads();
        let mut frames = frames.expect("sound DWARF");
        while let Some(frame) = frames.next().expect("sound DWARF") {
            let name = frame.function.as_ref().map(|function| function.raw_name().is_ok());
            black_box((name, frame.location.map(|location| (location.file, location.line, location.column))));
        }
    }
}

fn sections(binary: &[u8]) -> Vec<(SectionId, Range<usize>)> {
    let mut sections = Vec::new();
    for payload in Parser::new(0).parse_all(binary) {
        if let Payload::CustomSection(section) = payload.expect("a valid guest")
            && let Some(id) = SECTIONS.into_iter().find(|id| id.name() == section.name())
        {
            sections.push((id, section.data_offset()..section.data_offset() + section.data().len()));
        }
    }
    sections
}

fn code_start(binary: &[u8]) -> usize {
    let payloads = Parser::new(0).parse_all(binary);
    let starts = payloads.filter_map(|payload| match payload.expect("a valid guest") {
        Payload::CodeSectionStart { range, .. } => Some(range.start),
        _ => None,
    });
    starts.last().expect("a guest with code")
}
