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
