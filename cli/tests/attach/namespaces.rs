//! A program in namespaces of its own, as in a container: its files are not those that have their names outside.

use std::path::Path;

use flamewalk_guests::python_wasmtime;

use crate::running::Attached;
use crate::support::{Folder, unshare};
use crate::{NEWEST, Program, check_shares, guest};

/// The precompiled guest and Wasmtime's library lie where nothing is outside, and the process has other numbers inside.
#[test]
fn files_are_those_of_the_programs_own_namespace() {
    let folder = Folder::new();
    let (library, compiled) = (folder.path("library"), folder.path("compiled"));
    std::fs::create_dir(&library).unwrap();
    std::fs::create_dir(&compiled).unwrap();
    let inside = r#"mount --bind "$1" "$2" && mount -t tmpfs none "$3" && shift 3 && exec "$@""#;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attach/embedding.py");
    let mut command = unshare(&["--pid", "--fork", "--kill-child", "--mount-proc"]);
    command
        .args(["sh", "-c", inside, "sh"])
        .arg(python_wasmtime(NEWEST).unwrap())
        .args([&library, &compiled]);
    command.env("PYTHONPATH", &library).arg("python3").arg(script).arg(guest());
    let program = Program::start(command.arg("compiled").arg(compiled.join("guest.cwasm")));
    for path in [&library, &compiled] {
        assert_eq!(std::fs::read_dir(path).unwrap().count(), 0, "nothing is there outside");
    }

    let children = format!("/proc/{pid}/task/{pid}/children", pid = program.id());
    let process = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
    let arguments = ["-d", "2", "--freq", "1999"];
    let (folded, _) = Attached::start(process, &arguments).end();
    check_shares(&folded, 1999.0, "in a namespace");
    let (folded, outcome) = Attached::start(process, &["-d", "1", "--host-frames"]).end();
    let has = |stack: &[String], name: &str| stack.iter().any(|frame| frame.contains(name));
    let named = folded.share(|stack| has(stack, "wasmtime_func_call") && has(stack, "straight"));
    assert!(named > 0.15, "{named}: {}", outcome.stderr);
}
