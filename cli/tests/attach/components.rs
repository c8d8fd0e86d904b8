//! Components, and guests on fibers, in unmodified embeddings: Python, and Wasmtime's own command.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use flamewalk_guests::{KNOWN_ANSWER, as_component, http_handler, python_wasmtime, wasmtime_command};

use crate::programs::names;
use crate::running::Attached;
use crate::support::{Folded, Folder};
use crate::{NEWEST, Program, check_shares, guest, profile, profile_enough, without_modules};

/// Of PyPI's package, which has the command of Wasmtime 49.
pub(crate) const COMMAND: &str = "49.0.4";

fn component(folder: &Folder) -> PathBuf {
    let path = folder.path("component.wasm");
    std::fs::write(&path, as_component(&std::fs::read(guest()).unwrap()).unwrap()).unwrap();
    path
}

/// The stacks as those of the main module, without the module's own name. The modules that adapt it to its imports are on the
/// way to the host; Wasmtime 50 keeps no names of theirs.
fn of_main_module(folded: Folded, component: &Path) -> Folded {
    let names = names(component);
    let is_main = |name: &str| {
        ["_start", "write_text"].contains(&name) || KNOWN_ANSWER.iter().any(|(known, _)| *known == name)
    };
    let is_adapter = |name: &str| {
        // Those of Rust's functions are shown as Rust has them.
        name.starts_with("wasm-function[") || name.contains("wasi_snapshot_preview1") || names.contains(name)
    };
    without_modules(folded, |name| {
        if !is_main(name) && is_adapter(name) { "[host] adapter".to_owned() } else { name.to_owned() }
    })
}

#[test]
fn components_in_python_have_their_names_and_shares() {
    let folder = Folder::new();
    let path = component(&folder);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attach/component.py");
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", python_wasmtime(NEWEST).unwrap()).arg(script).arg(&path);
    let program = Program::start(command.args(["--rounds", "100"]));
    check_shares(&of_main_module(profile_enough(&program, 1999), &path), 1999.0, "component in Python");
}

/// Wasmtime's command runs guests on fibers, modules and components alike.
#[test]
fn guests_on_fibers_have_their_names_and_shares() {
    let folder = Folder::new();
    for binary in [guest(), component(&folder)] {
        let mut command = Command::new(wasmtime_command(COMMAND).unwrap());
        command.arg("run").arg(&binary).args(["--rounds", "1000000"]);
        let program = Program(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
        let (folded, outcome) = profile(&program, &["--wait", "-d", "4", "--host-frames"]);
        let has = |stack: &[String], name: &str| stack.iter().any(|frame| frame.contains(name));
        // The fiber's first function is the oldest frame of each stack with a guest.
        let on_fiber =
            folded.share(|stack| stack[0].ends_with("wasmtime_fiber_start") && has(stack, "_start"));
        assert!(on_fiber > 0.99, "{on_fiber}: {}", outcome.stderr);
        check_shares(&of_main_module(profile_enough(&program, 1999), &binary), 1999.0, "on a fiber");
    }
}

/// A server: each request is a guest on a fiber, which waits in between, and goes on on another thread.
#[test]
fn a_server_with_guests_on_fibers() {
    let folder = Folder::new();
    let path = folder.path("handler.wasm");
    std::fs::write(&path, http_handler().unwrap()).unwrap();
    let mut command = Command::new(wasmtime_command(COMMAND).unwrap());
    command.args(["serve", "--addr", "127.0.0.1:0"]).arg(&path);
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let server = Program(child);
    stderr.read_line(&mut line).unwrap();
    let address = line.trim().trim_end_matches('/').rsplit_once('/').unwrap().1.to_owned();

    let is_over = AtomicBool::new(false);
    let folded = std::thread::scope(|scope| {
        // It is gone if anything fails here, and so are the clients.
        let program = server;
        // Each client asks for both in turn, so that both are asked for equally often.
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    for path in ["/search", "/render"] {
                        let response = request(&address, path);
                        let is_right = response.is_ok_and(|text| text.starts_with("HTTP/1.1 200 "));
                        assert!(is_right || is_over.load(Ordering::Relaxed), "{path}");
                    }
                }
            });
        }
        let attached = Attached::start(program.id(), &["-d", "3", "--freq", "1999"]);
        let ended = attached.end();
        is_over.store(true, Ordering::Relaxed);
        without_modules(ended.0, str::to_owned)
    });
    let computing = |name: &str| {
        folded.share(|stack| stack.last().unwrap() == "turn" && stack.iter().any(|frame| frame == name))
    };
    // 900,000 turns of the same loop and 300,000.
    let (search, render) = (computing("search"), computing("render"));
    let (found, samples) = (search / (search + render), folded.total() as f64 * 1e-9 * 1999.0);
    let tolerance = 0.02 + 4.0 * (0.75 * 0.25 / samples).sqrt();
    assert!((found - 0.75).abs() < tolerance, "{found} of {samples} samples: {folded:?}");
    let is_whole = |stack: &[String]| ["handle", "(module start)"].contains(&&stack[0][..]);
    assert!(folded.share(is_whole) > 0.99, "{folded:?}");
}

fn request(address: &str, path: &str) -> io::Result<String> {
    let mut connection = TcpStream::connect(address)?;
    write!(connection, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    io::read_to_string(connection)
}
