//! The committed binaries are what their sources give, on every machine.

use std::path::Path;

use flamewalk_guests::{Guest, committed};

#[test]
fn binaries_are_what_their_sources_give() {
    let stale =
        committed::stale().unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)));
    assert_eq!(stale, [], "run `cargo run -p flamewalk-guests --bin build-guests`");
}

#[test]
fn every_binary_belongs_to_a_guest() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("wasm");
    let mut found: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut expected: Vec<_> = Guest::ALL.map(Guest::path).into();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

/// A path of the machine that built it would make the binary another one on the next machine.
#[test]
fn paths_in_binaries_are_mapped() {
    for guest in Guest::ALL {
        let binary = std::fs::read(guest.path()).unwrap();
        let texts = binary.split(|byte| *byte == 0).filter_map(|text| std::str::from_utf8(text).ok());
        let paths: Vec<_> = texts.filter(|text| looks_like_a_path(text)).collect();
        assert_eq!(!paths.is_empty(), guest.has_dwarf(), "{}", guest.name());
        for path in paths {
            let mapped = [committed::SOURCES_IN_DWARF, committed::ZIG_IN_DWARF];
            assert!(mapped.iter().any(|folder| path.starts_with(folder)), "{}: {path}", guest.name());
        }
    }
}

/// The bytes of code and of line tables can look like a very short one.
fn looks_like_a_path(text: &str) -> bool {
    text.len() > 6
        && text.starts_with('/')
        && text[1..].contains('/')
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}
