//! Rules that are found by instructions, next to the compiler's own unwind information.
//!
//! `FLAMEWALK_UNWIND_LIBRARIES=/path/one.so:/path/two.so` tries other libraries. Of each library so many instructions are
//! tried; `FLAMEWALK_UNWIND_CASES` is another number.

use std::collections::BTreeMap;
use std::path::Path;

use flamewalk_unwinder::instructions::{FrameRule, NoRule, Paths, StackPlace};
use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, EndianSlice, FrameDescriptionEntry, LittleEndian, Register,
    RegisterRule, UnwindContext, UnwindSection, X86_64,
};
use iced_x86::{Decoder, DecoderOptions, Mnemonic};
use object::{Object, ObjectSection, ObjectSymbol};

use crate::process::{Process, ProcessCode, cases, libraries};

type Bytes<'a> = EndianSlice<'a, LittleEndian>;
type Entry<'a> = FrameDescriptionEntry<Bytes<'a>>;

/// What the unwind information says, in offsets from the address of the frame, which is that behind the return address.
struct Row {
    base: Register,
    offset: i64,
    frame_pointer: Option<i64>,
}

/// How many cases ended in what way.
#[derive(Debug, Default)]
struct Counts {
    agreed: usize,
    /// Rules that are given by another register than in the unwind information, so that only the distance between the saved
    /// frame pointer and the return address can be compared.
    by_other_register: usize,
    /// The unwind information lags behind in an epilogue.
    late: usize,
    no_return: usize,
    disagreement: usize,
}

struct Library<'a> {
    frames: EhFrame<Bytes<'a>>,
    bases: BaseAddresses,
    text: (u64, &'a [u8]),
    names: BTreeMap<u64, &'a str>,
}

impl<'a> Library<'a> {
    fn new(file: &'a object::File<'a>) -> Self {
        let text = file.section_by_name(".text").unwrap();
        let frames = file.section_by_name(".eh_frame").unwrap();
        let symbols = file.symbols().chain(file.dynamic_symbols());
        Self {
            frames: EhFrame::new(frames.data().unwrap(), LittleEndian),
            bases: BaseAddresses::default().set_eh_frame(frames.address()).set_text(text.address()),
            text: (text.address(), text.data().unwrap()),
            names: symbols.map(|symbol| (symbol.address(), symbol.name().unwrap_or_default())).collect(),
        }
    }

    fn entries(&self) -> Vec<Entry<'a>> {
        let mut found = Vec::new();
        let mut entries = self.frames.entries(&self.bases);
        while let Some(entry) = entries.next().unwrap() {
            let CieOrFde::Fde(entry) = entry else { continue };
            let entry = entry.parse(EhFrame::cie_from_offset).unwrap();
            if self.body(&entry).is_some() && !self.is_wrong(&entry) {
                found.push(entry);
            }
        }
        found
    }

    fn body(&self, entry: &Entry<'a>) -> Option<&'a [u8]> {
        let start = entry.initial_address().checked_sub(self.text.0)? as usize;
        self.text.1.get(start..start + entry.len() as usize)
    }

    /// The function's instructions, and where its calls return to.
    fn places(&self, entry: &Entry<'a>) -> Vec<(u64, bool)> {
        let mut places = Vec::new();
        let body = self.body(entry).unwrap();
        for instruction in Decoder::with_ip(64, body, entry.initial_address(), DecoderOptions::NONE).iter() {
            // What only fills the space between functions is not executed.
            if !matches!(instruction.mnemonic(), Mnemonic::Nop | Mnemonic::Int3) {
                places.push((instruction.ip(), false));
            }
            if instruction.is_call_near() || instruction.is_call_near_indirect() {
                places.push((instruction.next_ip(), true));
            }
        }
        places
    }

    /// Whether a function pushes and its unwind information does not say so: `glibc`'s arithmetic of large numbers, which is
    /// written in assembly, has one row for all.
    fn is_wrong(&self, entry: &Entry<'a>) -> bool {
        let body = self.body(entry).unwrap();
        let mut instructions = Decoder::new(64, body, DecoderOptions::NONE).into_iter();
        let has_push = instructions.any(|instruction| instruction.mnemonic() == Mnemonic::Push);
        let mut context = UnwindContext::new();
        let mut rows = entry.rows(&self.frames, &self.bases, &mut context).unwrap();
        let mut count = 0;
        while rows.next_row().unwrap().is_some() {
            count += 1;
        }
        has_push && count == 1
    }

    /// The row for an address.
    fn row(&self, entry: &Entry<'a>, address: u64) -> Option<Row> {
        let mut context = UnwindContext::new();
        let row = entry.unwind_info_for_address(&self.frames, &self.bases, &mut context, address).ok()?;
        let CfaRule::RegisterAndOffset { register, offset } = *row.cfa() else { return None };
        // Another register has the frame of a function that switches to another stack.
        if ![X86_64::RSP, X86_64::RBP].contains(&register) {
            return None;
        }
        let frame_pointer = match row.register(X86_64::RBP) {
            Some(RegisterRule::Offset(offset)) => Some(offset),
            None | Some(RegisterRule::SameValue | RegisterRule::Undefined) => None,
            Some(_) => return None,
        };
        Some(Row { base: register, offset, frame_pointer })
    }

    fn saves_frame_pointer_at(&self, entry: &Entry<'a>, offset: i64) -> bool {
        let mut addresses = entry.initial_address()..entry.initial_address() + entry.len();
        addresses.any(|address| self.row(entry, address).is_some_and(|row| row.frame_pointer == Some(offset)))
    }

    /// Whether return address and saved frame pointer are the same; `None` if they are given by different registers.
    fn agrees(&self, entry: &Entry<'a>, row: &Row, rule: &FrameRule) -> (Option<bool>, bool) {
        let (base, offset) = split(rule.return_address);
        let frame = offset + 8;
        let return_address = (base == row.base).then_some(frame == row.offset);
        let saved = rule.frame_pointer.map(|place| match split(place) {
            (other, offset) if other == base => offset - frame,
            (_, offset) => offset - row.offset,
        });
        let frame_pointer = match (saved, row.frame_pointer) {
            (found, stated) if found == stated => true,
            // It was pushed, and its register still has it: compilers say so a little later, or where the function begins.
            (Some(found), None) => self.saves_frame_pointer_at(entry, found),
            // It was popped, and its word lies below the stack.
            (None, Some(stated)) => base == X86_64::RSP && frame + stated < 0,
            _ => false,
        };
        (return_address, frame_pointer)
    }

    /// Whether the instruction before frees the function's frame, and the row is still that of before: so LLVM does where it
    /// has put a jump between this and the end.
    fn is_late(&self, entry: &Entry<'a>, row: &Row, pc: u64, rule: &FrameRule) -> bool {
        let (base, offset) = split(rule.return_address);
        let body = self.body(entry).unwrap();
        let mut instructions =
            Decoder::with_ip(64, body, entry.initial_address(), DecoderOptions::NONE).into_iter();
        let before = instructions.find(|instruction| instruction.next_ip() == pc);
        before.is_some_and(|before| {
            let frees =
                before.mnemonic() == Mnemonic::Add && before.op0_register() == iced_x86::Register::RSP;
            frees && base == row.base && offset + 8 + before.immediate(1).cast_signed() == row.offset
        })
    }

    fn name(&self, address: u64) -> &str {
        self.names.range(..=address).next_back().map_or("", |(_, name)| name)
    }
}

fn split(place: StackPlace) -> (Register, i64) {
    match place {
        StackPlace::AboveStackPointer(bytes) => (X86_64::RSP, bytes),
        StackPlace::AboveFramePointer(bytes) => (X86_64::RBP, bytes),
    }
}

fn compare(path: &Path, cases: usize) -> Counts {
    let bytes = std::fs::read(path).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let library = Library::new(&file);
    let process = Process::load(path);
    let mut code: ProcessCode<'_> = process.code();
    let mut paths = Paths::default();
    let entries = library.entries();
    let places: Vec<(&Entry<'_>, u64, bool)> = entries
        .iter()
        .flat_map(|entry| library.places(entry).into_iter().map(move |(pc, returned)| (entry, pc, returned)))
        .collect();
    let mut counts = Counts::default();
    for (entry, pc, is_return_address) in places.iter().step_by(places.len().div_ceil(cases)) {
        let Some(row) = library.row(entry, pc - u64::from(*is_return_address)) else { continue };
        match paths.rule(&mut code, process.base + pc, *is_return_address) {
            Err(NoRule::NoReturn) => counts.no_return += 1,
            Err(NoRule::Disagreement) => counts.disagreement += 1,
            Ok(rule) => {
                if library.is_late(entry, &row, *pc, &rule) {
                    counts.late += 1;
                    continue;
                }
                let (return_address, frame_pointer) = library.agrees(entry, &row, &rule);
                assert!(
                    return_address != Some(false) && frame_pointer,
                    "{}: {pc:#x} in {}: {rule:?}, where the unwind information has {:?} + {}, {:?}",
                    path.display(),
                    library.name(entry.initial_address()),
                    row.base,
                    row.offset,
                    row.frame_pointer
                );
                match return_address {
                    Some(_) => counts.agreed += 1,
                    None => counts.by_other_register += 1,
                }
            }
        }
    }
    counts
}

#[test]
fn rules_are_those_of_the_unwind_information() {
    let libraries = libraries();
    assert!(!libraries.is_empty());
    for library in libraries {
        let counts = compare(&library, cases(20_000));
        println!("{}: {counts:?}", library.display());
        // The rest is in ways to the end of the program, and in what an exception lands on.
        let stated = (counts.agreed + counts.by_other_register + counts.late) as f64;
        let all = stated + (counts.no_return + counts.disagreement) as f64;
        assert!(stated > 0.6 * all, "{}: {counts:?}", library.display());
    }
}
