//! Guests that were compiled ahead of time, and symbols from another file.

use std::path::{Path, PathBuf};

use flamewalk_guests::Guest;
use wasmtime::{Config, Engine};

use crate::finish;
use crate::support::{Folded, Folder, Outcome, flamewalk_run};

/// `exits` compiled by an engine of this configuration.
fn precompiled(folder: &Folder, name: &str, config: &Config) -> PathBuf {
    let engine = Engine::new(config).unwrap();
    let image = engine.precompile_module(&std::fs::read(Guest::Exits.path()).unwrap()).unwrap();
    let path = folder.path(name);
    std::fs::write(&path, image).unwrap();
    path
}

fn refused(options: &[&str], guest: &Path, parts: &[&str]) {
    let outcome = finish(flamewalk_run().args(options).arg(guest).arg("return"));
    assert_eq!(outcome.status, Some(125), "{outcome:?}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    for part in parts {
        assert!(outcome.stderr.contains(part), "{part} is not in: {outcome:?}");
    }
}

#[test]
fn a_precompiled_guest_runs_if_it_is_trusted() {
    let folder = Folder::new();
    let guest = precompiled(&folder, "exits.cwasm", &Config::new());
    refused(&[], &guest, &["exits.cwasm", "--allow-precompiled"]);
    let (_, profile) = crate::profile(&folder, &["--allow-precompiled"], &guest, &["return"]);
    assert!(profile.share(|stack| stack.iter().any(|frame| frame == "work")) > 0.8, "{profile:?}");
}

#[test]
fn a_precompiled_component_runs_as_well() {
    let folder = Folder::new();
    let component = flamewalk_guests::as_component(&std::fs::read(Guest::Exits.path()).unwrap()).unwrap();
    let guest = folder.path("exits.cwasm");
    std::fs::write(&guest, Engine::default().precompile_component(&component).unwrap()).unwrap();
    let (_, profile) = crate::profile(&folder, &["--allow-precompiled"], &guest, &["return"]);
    assert!(profile.share(|stack| stack.iter().any(|frame| frame.ends_with("work"))) > 0.8, "{profile:?}");
}

#[test]
fn one_for_another_version_machine_or_configuration_is_refused() {
    let folder = Folder::new();
    let guest = precompiled(&folder, "exits.cwasm", &Config::new());
    let image = std::fs::read(&guest).unwrap();
    let again = ["exits.cwasm", "another machine, version or configuration", "compile it again"];

    // What the engine's section begins with: the format's version, then Wasmtime's major version as text.
    let (major, _) = flamewalk::WASMTIME_VERSION.split_once('.').unwrap();
    let mut version = vec![0, major.len() as u8];
    version.extend(major.bytes());
    let places: Vec<_> =
        (0..image.len() - version.len()).filter(|&start| image[start..].starts_with(&version)).collect();
    assert_eq!(places.len(), 1);
    let mut other = image.clone();
    other[places[0] + 2] ^= 1;
    std::fs::write(&guest, &other).unwrap();
    refused(&["--allow-precompiled"], &guest, &again);

    // The machine follows in the same section, as a target triple.
    let triple = places[0] + image[places[0]..].windows(7).position(|bytes| bytes == b"x86_64-").unwrap();
    let mut other = image.clone();
    other[triple..triple + 7].copy_from_slice(b"riscv64");
    std::fs::write(&guest, &other).unwrap();
    refused(&["--allow-precompiled"], &guest, &again);

    let mut config = Config::new();
    config.consume_fuel(true);
    let guest = precompiled(&folder, "exits.cwasm", &config);
    refused(&["--allow-precompiled"], &guest, &again);
}

#[test]
fn a_truncated_one_is_refused() {
    let folder = Folder::new();
    let guest = precompiled(&folder, "exits.cwasm", &Config::new());
    let image = std::fs::read(&guest).unwrap();
    for cut in [4, 16, 63, 64, 100, 1000, image.len() / 2, image.len() - 1] {
        std::fs::write(&guest, &image[..cut]).unwrap();
        refused(&["--allow-precompiled"], &guest, &["exits.cwasm"]);
    }
}

/// A guest without its custom sections: neither names nor DWARF.
pub(crate) fn without_custom_sections(binary: &[u8]) -> Vec<u8> {
    let mut stripped = binary[..8].to_vec();
    for payload in wasmparser::Parser::new(0).parse_all(binary) {
        let payload = payload.unwrap();
        let Some((id, range)) = payload.as_section() else { continue };
        if id != 0 {
            stripped.push(id);
            let mut length = range.len();
            while length >= 0x80 {
                stripped.push(length as u8 | 0x80);
                length >>= 7;
            }
            stripped.push(length as u8);
            stripped.extend(&binary[range]);
        }
    }
    stripped
}

/// `known_answer` without its custom sections.
fn stripped(folder: &Folder) -> PathBuf {
    let path = folder.path("stripped.wasm");
    std::fs::write(&path, without_custom_sections(&std::fs::read(Guest::KnownAnswer.path()).unwrap()))
        .unwrap();
    path
}

fn with_symbols(folder: &Folder, symbols: Option<&Path>) -> (Outcome, Folded) {
    let mut options = vec![];
    if let Some(symbols) = symbols {
        options.extend(["--symbols", symbols.to_str().unwrap()]);
    }
    crate::profile(folder, &options, &stripped(folder), &["--rounds", "300"])
}

#[test]
fn a_stripped_guest_has_indices_for_names() {
    let folder = Folder::new();
    let (_, profile) = with_symbols(&folder, None);
    let named = |frame: &String| frame.starts_with("wasm-function[") || frame.starts_with("[host] ");
    // `_start` is the name of an export.
    assert!(
        profile.0.iter().all(|(stack, _)| stack.iter().all(|frame| named(frame) || frame == "_start")),
        "{profile:?}"
    );
}

#[test]
fn it_can_be_given_its_symbols() {
    let folder = Folder::new();
    let (outcome, profile) = with_symbols(&folder, Some(&Guest::KnownAnswer.path()));
    assert!(profile.share(|stack| stack.last().unwrap() == "straight") > 0.2, "{profile:?}");
    assert!(!outcome.stderr.contains("not used"), "{outcome:?}");
}

#[test]
fn symbols_of_another_guest_are_refused() {
    let folder = Folder::new();
    let guest = stripped(&folder);
    let other_code = "give --symbols the file that the guest was stripped from";
    for symbols in [Guest::Exits.path(), Guest::KnownAnswerHost.path(), Guest::Nothing.path()] {
        refused(&["--symbols", symbols.to_str().unwrap()], &guest, &[symbols.to_str().unwrap(), other_code]);
    }
    let no_wasm = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    refused(&["--symbols", no_wasm.to_str().unwrap()], &guest, &[no_wasm.to_str().unwrap()]);
    refused(&["--symbols", folder.path("absent").to_str().unwrap()], &guest, &["cannot read", "absent"]);
}
