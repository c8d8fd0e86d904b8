//! Reads the binaries of guests, their names and their DWARF, and symbolizes code that was compiled from them.
//!
//! The first byte chooses: the rest is a binary, or custom sections that are put behind the code of one that its image
//! was compiled from, so that they are looked at.

#![no_main]

use flamewalk_fuzz::{LINES, LINES_IMAGE, ask_everywhere, with_custom_sections};
use flamewalk_symbolizer::{CodeImage, GuestBinary, Symbolizer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((choice, content)) = input.split_first() else { return };
    let binary = match choice % 2 {
        0 => content.to_vec(),
        _ => with_custom_sections(content),
    };
    let image = || CodeImage::parse(LINES_IMAGE).expect("an image that Wasmtime has compiled");
    let binary = GuestBinary::from(binary);
    let original = GuestBinary::from(LINES.to_vec());
    if binary.check().is_ok() {
        let is_same = binary.check_same_code(&original).is_ok();
        assert_eq!(is_same, original.check_same_code(&binary).is_ok());
        assert!(binary.check_same_code(&binary).is_ok());
        for offset in [0, 40, 100, u32::MAX] {
            let body = binary.body_at(offset).expect("it was checked");
            assert!(body.is_none_or(|body| body.range.contains(&offset)));
        }
    }
    if let Ok(symbolizer) = Symbolizer::new(image(), "guest", Some(binary.clone()), None) {
        ask_everywhere(symbolizer);
    }
    if let Ok(symbolizer) = Symbolizer::new(image(), "guest", Some(original), Some(binary)) {
        ask_everywhere(symbolizer);
    }
});
