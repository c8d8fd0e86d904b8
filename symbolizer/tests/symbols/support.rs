//! Guests, images and symbolizers for all tests.

use std::fs;

use flamewalk_guests::Guest;
use flamewalk_symbolizer::{CodeImage, GuestBinary, Symbolizer};
use wasmtime::{Config, Engine};

pub(crate) fn guest(guest: Guest) -> Vec<u8> {
    fs::read(guest.path()).unwrap_or_else(|error| panic!("{}: {error}", guest.path().display()))
}

pub(crate) fn engine(configure: impl FnOnce(&mut Config)) -> Engine {
    let mut config = Config::new();
    configure(&mut config);
    Engine::new(&config).expect("an engine for this machine")
}

/// Compiles a core module or a component.
pub(crate) fn compile(engine: &Engine, binary: &[u8]) -> Vec<u8> {
    let compiled = if wasmparser::Parser::is_component(binary) {
        engine.precompile_component(binary)
    } else {
        engine.precompile_module(binary)
    };
    compiled.expect("the guest compiles")
}

pub(crate) fn parse(image: &[u8]) -> CodeImage {
    CodeImage::parse(image).expect("an image that Wasmtime wrote")
}

/// A symbolizer with the binary that the image was compiled from.
pub(crate) fn symbolizer(engine: &Engine, binary: &[u8]) -> Symbolizer {
    let image = parse(&compile(engine, binary));
    Symbolizer::new(image, "guest", Some(GuestBinary::from(binary.to_vec())), None).expect("a binary alone")
}

/// Where the contents of the only code section begin.
pub(crate) fn code_start(binary: &[u8]) -> usize {
    let payloads = wasmparser::Parser::new(0).parse_all(binary);
    let code = payloads.filter_map(|payload| match payload.expect("a valid guest") {
        wasmparser::Payload::CodeSectionStart { range, .. } => Some(range.start),
        _ => None,
    });
    let code: Vec<usize> = code.collect();
    assert_eq!(code.len(), 1, "a guest with one code section");
    code[0]
}

/// A component with imports by interface and by itself, two core modules, one of them without names and with
/// initializers that take code, and a resource of the host.
pub(crate) const COMPONENT: &str = r#"(component
  (import "host:log/sink@1.0.0" (instance $sink
    (export "line" (type $line (sub resource)))
    (export "write" (func (param "x" u32)))
    (export "flush" (func))))
  (import "beep" (func $beep))
  (alias export $sink "line" (type $line))
  (core func $write (canon lower (func $sink "write")))
  (core func $flush (canon lower (func $sink "flush")))
  (core func $low-beep (canon lower (func $beep)))
  (core func $drop (canon resource.drop $line))
  (core module $first
    (import "s" "w" (func $w (param i32)))
    (import "s" "d" (func $d (param i32)))
    (import "s" "b" (func $b))
    (func $run (export "run") i32.const 1 call $w i32.const 0 call $helper)
    (func $helper (param i32) call $b local.get 0 call $d))
  (core module
    (import "x" "f" (func (param i32)))
    (import "x" "g" (func))
    (table 1 funcref)
    (global funcref (ref.func 2))
    (elem declare func 2)
    (memory 1)
    (data (i32.const 0) "abc")
    (func (export "go") i32.const 2 call 0 call 1)
    (func (export "indirect") i32.const 0 call_indirect))
  (core instance $one (instantiate $first (with "s" (instance
    (export "w" (func $write)) (export "d" (func $drop)) (export "b" (func $low-beep))))))
  (core instance $two (instantiate 1 (with "x" (instance
    (export "f" (func $write)) (export "g" (func $flush))))))
  (func (export "run") (canon lift (core func $one "run")))
  (func (export "go") (canon lift (core func $two "go")))
)"#;

/// A module with one function, whose body lies from 2 to 7 in the code section, and these custom sections.
pub(crate) fn with_sections(sections: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut binary =
        wat::parse_str("(module (func (export \"f\") (param i32) (result i32) local.get 0 i32.popcnt))")
            .expect("valid text");
    for (name, contents) in sections {
        let mut section = vec![u8::try_from(name.len()).expect("a short name")];
        section.extend(name.as_bytes());
        section.extend(contents);
        binary.push(0);
        let mut size = section.len();
        while size >= 0x80 {
            binary.push(size as u8 | 0x80);
            size >>= 7;
        }
        binary.push(size as u8);
        binary.extend(section);
    }
    assert!(wasmparser::validate(&binary).is_ok());
    binary
}

/// A DWARF 4 unit around entries.
pub(crate) fn unit(entries: &[u8]) -> Vec<u8> {
    let mut unit = Vec::new();
    unit.extend((entries.len() as u32 + 7).to_le_bytes());
    unit.extend([4, 0, 0, 0, 0, 0, 4]);
    unit.extend(entries);
    unit
}

/// An address and a size, or two addresses.
pub(crate) fn range(low: u32, high: u32) -> Vec<u8> {
    [low.to_le_bytes(), high.to_le_bytes()].concat()
}
