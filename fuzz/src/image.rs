//! Reads code of guests as `flamewalk attach` does, from the memory of a process that can hold anything: finds the image
//! of a text, parses it, and asks for frames and host calls all over it.
//!
//! The first byte chooses: the rest is the image, or it is one section's contents in an image that Wasmtime has compiled.
//! The second byte is then the section.

#![no_main]

use std::sync::Arc;

use flamewalk_fuzz::{IMAGE_SECTIONS, IMAGES, ask_everywhere, with_section};
use flamewalk_symbolizer::{CodeImage, Symbolizer, find_image, find_image_of_code};
use libfuzzer_sys::fuzz_target;

const PAGE: usize = 4096;
/// Where the image lies in memory.
const START: usize = 16 * PAGE;

fuzz_target!(|input: &[u8]| {
    let Some((choice, content)) = input.split_first() else { return };
    let base = IMAGES.get(usize::from(*choice) % (IMAGES.len() + 1));
    let image = match (base, content.split_first()) {
        (None, _) => content.to_vec(),
        (Some(_), None) => return,
        (Some(base), Some((section, content))) => {
            with_section(base, IMAGE_SECTIONS[usize::from(*section) % IMAGE_SECTIONS.len()], content)
        }
    };
    find(&image);
    let Ok(parsed) = CodeImage::parse(&image) else { return };
    let text = parsed.text();
    assert!(image.get(text.clone()).is_some(), "the text lies in the image");
    let last = parsed.functions().last().map_or(0, |function| function.end() as usize);
    assert!(last <= text.len(), "functions lie in the text");
    assert!(parsed.functions().is_sorted_by_key(|function| function.start));
    ask_everywhere(Symbolizer::of_unknown(Arc::new(parsed), "guest"));
});

/// Where an image is found, all of it can be read.
fn find(image: &[u8]) {
    let read = |address: usize, buffer: &mut [u8]| {
        let bytes = address.checked_sub(START).and_then(|offset| image.get(offset..)?.get(..buffer.len()));
        bytes.inspect(|bytes| buffer.copy_from_slice(bytes)).is_some()
    };
    for page in 1..=4 {
        let text_start = START + page * PAGE;
        if let Some(place) = find_image_of_code(text_start, PAGE, read) {
            assert!(place.image.start >= START && place.text.start == text_start);
            assert!(place.image.start <= place.text.start && place.text.end <= place.image.end);
            assert_eq!(find_image(&place.text, PAGE, read), Some(place.image));
        }
    }
}
