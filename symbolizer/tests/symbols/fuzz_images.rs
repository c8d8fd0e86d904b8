//! The images that fuzzing starts from, `fuzz/images`. They are committed, since fuzzing does not build Wasmtime.
//!
//! `FLAMEWALK_WRITE_IMAGES=1 cargo test --workspace --test symbols fuzz_images` compiles them again, those of other
//! versions with Python's package `wasmtime`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use flamewalk_guests::{Guest, python_wasmtime};
use flamewalk_symbolizer::{CodeAddress, Symbolizer};
use wasmtime::WasmBacktraceDetails;

use crate::support::{COMPONENT, compile, engine, guest, parse};

/// An import, a builtin, a name for every function.
const MODULE: &str = r#"(module $app
  (import "env" "log" (func $log (param i32)))
  (memory 1)
  (func $leaf (param i32) (result i32) (i32.load (local.get 0)))
  (func $work (export "work") (param i32)
    (call $log (call $leaf (local.get 0)))
    (loop
      (drop (memory.grow (i32.const 1)))
      (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))))"#;

/// Each has another form of the metadata or of the address map.
const OTHER_VERSIONS: [&str; 3] = ["14.0.0", "25.0.0", "50.0.1"];

const COMPILE: &str = "import sys, wasmtime
module = wasmtime.Module(wasmtime.Engine(), sys.argv[1])
open(sys.argv[2], 'wb').write(bytes(module.serialize()))";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/images")
}

fn write_images() {
    let write = |name: &str, image: Vec<u8>| fs::write(folder().join(name), image).expect("a file");
    let module = wat::parse_str(MODULE).expect("valid text");
    let component = wat::parse_str(COMPONENT).expect("valid text");
    let with_dwarf = engine(|config| {
        config.wasm_backtrace_details(WasmBacktraceDetails::Enable);
    });
    write("module", compile(&engine(|_| ()), &module));
    write("component", compile(&engine(|_| ()), &component));
    write("dwarf", compile(&with_dwarf, &guest(Guest::Lines)));
    for version in OTHER_VERSIONS {
        let mut python = Command::new("python3");
        python.env("PYTHONPATH", python_wasmtime(version).expect("the package"));
        python.args(["-c", COMPILE, MODULE]).arg(folder().join(format!("module-{version}")));
        assert!(python.status().expect("Python").success());
    }
}

#[test]
fn the_images_that_fuzzing_starts_from_are_understood() {
    if std::env::var_os("FLAMEWALK_WRITE_IMAGES").is_some() {
        write_images();
    }
    let others = OTHER_VERSIONS.map(|version| (format!("module-{version}"), "work"));
    let own = [("module", "work"), ("component", "helper"), ("dwarf", "lines")];
    let own = own.map(|(name, function)| (name.to_owned(), function));
    for (name, function) in others.into_iter().chain(own) {
        let image = parse(&fs::read(folder().join(&name)).expect("a committed image"));
        let version = image.wasmtime_version().expect("a version").split('.').next();
        // Otherwise its metadata is not looked at.
        let expected = name.strip_prefix("module-").unwrap_or(wasmtime_environ::VERSION).split('.').next();
        assert_eq!(version, expected, "{name}: write the images again, see above");
        let functions = image.functions().to_vec();
        let mut symbolizer = Symbolizer::of_unknown(image, "guest");
        let names: BTreeSet<_> = functions
            .iter()
            .flat_map(|function| symbolizer.frames(CodeAddress::Instruction(function.start)).to_vec())
            .map(|frame| frame.name.to_string())
            .collect();
        assert!(names.contains(function), "{name}: {names:?}");
    }
}
