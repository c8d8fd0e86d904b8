//! What becomes of the file that was there: it is replaced by one that is whole, or left as it is.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use flamewalk_guests::Guest;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

use crate::finish;
use crate::reading::write_profile;
use crate::support::{Folded, Folder, end_of, flamewalk, flamewalk_run, unshare};

fn names(folder: &Folder) -> Vec<String> {
    let entries = fs::read_dir(folder.path("")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// An empty file was left, or that which was there before emptied.
#[test]
fn an_interrupt_before_the_guest_starts_leaves_outputs_as_they_were() {
    let folder = Folder::new();
    let (old, new, guest) = (folder.path("old.folded"), folder.path("new.svg"), folder.path("guest.wasm"));
    fs::write(&old, "kept").unwrap();
    mkfifo(&guest, Mode::S_IRWXU).unwrap();
    let mut command = flamewalk_run();
    command.arg("-o").arg(&old).arg("-o").arg(&new).arg(&guest).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    // Open when the command has opened it, too, and reads what is not written.
    let guest = File::options().write(true).open(&guest).unwrap();
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    let outcome = end_of(child);
    drop(guest);
    assert_eq!(outcome.status, Some(130), "{outcome:?}");
    assert_eq!(read(&old), "kept");
    assert_eq!(names(&folder), ["guest.wasm", "old.folded"]);
}

/// The command, which cannot write to files. (A guest could not be run so: its memory is one for the kernel.)
fn on_full_disk(arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_flamewalk")]);
    command.args(arguments);
    command
}

/// Nothing was left of it.
#[test]
fn a_profile_that_cannot_be_written_leaves_the_one_before() {
    let folder = Folder::new();
    let input = folder.path("made.flamewalk");
    write_profile(&input);
    let input = input.to_str().unwrap();
    let comparison = ["diff", input, input];
    for (arguments, name) in [
        (&["report", input][..], "old.folded"),
        (&["report", input], "new.folded"),
        (&["merge", input, input], "old.folded"),
        (&comparison, "old.svg"),
    ] {
        let output = folder.path(name);
        let is_old = name.starts_with("old");
        if is_old {
            fs::write(&output, "kept").unwrap();
        }
        let before = names(&folder);
        let (subcommand, others) = arguments.split_first().unwrap();
        let outcome =
            finish(&mut on_full_disk(&[&[*subcommand, "-o", output.to_str().unwrap()], others].concat()));
        assert_eq!(outcome.status, Some(125), "{outcome:?}");
        assert!(outcome.stderr.contains("cannot write") && outcome.stderr.contains(name), "{outcome:?}");
        if is_old {
            assert_eq!(read(&output), "kept", "{arguments:?}");
        }
        assert_eq!(names(&folder), before, "{arguments:?}");
    }
}

/// `report`, `merge` and `diff` stopped at the first that failed.
#[test]
fn the_other_outputs_are_written_if_one_fails() {
    let folder = Folder::new();
    let (input, full) = (folder.path("made.flamewalk"), folder.path("full.svg"));
    write_profile(&input);
    symlink("/dev/full", &full).unwrap();
    let exits = Guest::Exits.path();
    for (subcommand, arguments) in [
        ("report", &[&*input][..]),
        ("merge", &[&*input, &*input]),
        ("diff", &[&*input, &*input]),
        ("run", &[&*exits, Path::new("return")]),
    ] {
        let whole = folder.path(&format!("{subcommand}.svg"));
        let mut command = flamewalk(subcommand);
        command.arg("-o").arg(&full).arg("-o").arg(&whole).args(arguments);
        let outcome = finish(&mut command);
        assert_eq!(outcome.status, Some(125), "{outcome:?}");
        assert!(read(&whole).contains("</svg>"), "{subcommand}");
        let wrote = outcome.stderr.matches("flamewalk: wrote ").count();
        assert!(wrote == 1 && outcome.stderr.contains("cannot write"), "{outcome:?}");
    }
}

/// Writes the profile to `output`.
fn report(input: &Path, output: &Path) {
    let outcome = finish(flamewalk("report").arg("-q").arg(input).arg("-o").arg(output));
    assert_eq!(outcome.status, Some(0), "{outcome:?}");
}

#[test]
fn a_replaced_file_is_as_it_was_but_for_what_it_holds() {
    let folder = Folder::new();
    let (input, plain) = (folder.path("made.flamewalk"), folder.path("plain.folded"));
    write_profile(&input);
    // A new one is as any program makes it.
    report(&input, &plain);
    File::create(folder.path("other")).unwrap();
    assert_eq!(fs::metadata(&plain).unwrap().mode(), fs::metadata(folder.path("other")).unwrap().mode());
    let whole = read(&plain);

    fs::write(&plain, "old\n".repeat(10_000)).unwrap();
    fs::set_permissions(&plain, Permissions::from_mode(0o640)).unwrap();
    let (there, absent) = (folder.path("there.folded"), folder.path("absent.folded"));
    symlink("plain.folded", &there).unwrap();
    symlink("new.folded", &absent).unwrap();
    report(&input, &there);
    report(&input, &absent);
    assert!(there.is_symlink() && absent.is_symlink());
    assert_eq!((read(&plain), read(&folder.path("new.folded"))), (whole.clone(), whole));
    assert_eq!(fs::metadata(&plain).unwrap().mode() & 0o7777, 0o640);
    let expected = ["absent.folded", "made.flamewalk", "new.folded", "other", "plain.folded", "there.folded"];
    assert_eq!(names(&folder), expected);
}

/// Such as a file that is mounted into a container: it is written to, and nothing takes its place.
#[test]
fn a_file_that_nothing_can_take_the_place_of_is_written_to() {
    let folder = Folder::new();
    let (input, output, expected) =
        (folder.path("made.flamewalk"), folder.path("out.folded"), folder.path("expected.folded"));
    write_profile(&input);
    report(&input, &expected);
    fs::write(&output, "old\n".repeat(10_000)).unwrap();
    let node = fs::metadata(&output).unwrap().ino();
    let mounted = "mount --bind \"$1\" \"$1\" && exec \"$0\" report -q \"$2\" -o \"$1\"";
    let mut command = unshare(&["sh", "-c", mounted]);
    command.arg(env!("CARGO_BIN_EXE_flamewalk")).arg(&output).arg(&input);
    let outcome = finish(&mut command);
    assert_eq!(outcome.status, Some(0), "{outcome:?}");
    assert_eq!((read(&output), fs::metadata(&output).unwrap().ino()), (read(&expected), node));
    assert_eq!(names(&folder), ["expected.folded", "made.flamewalk", "out.folded"]);
}

/// It once was that the other names kept what was there before.
#[test]
fn a_file_with_two_names_has_both_afterwards() {
    let folder = Folder::new();
    let (input, output, other, expected) = (
        folder.path("made.flamewalk"),
        folder.path("out.folded"),
        folder.path("other.folded"),
        folder.path("expected.folded"),
    );
    write_profile(&input);
    report(&input, &expected);
    fs::write(&output, "old\n".repeat(10_000)).unwrap();
    fs::hard_link(&output, &other).unwrap();
    report(&input, &output);
    assert_eq!((read(&output), read(&other)), (read(&expected), read(&expected)));
    assert_eq!(names(&folder), ["expected.folded", "made.flamewalk", "other.folded", "out.folded"]);
}

#[test]
fn a_named_pipe_gets_what_is_written() {
    let folder = Folder::new();
    let (input, pipe, file) =
        (folder.path("made.flamewalk"), folder.path("pipe.folded"), folder.path("file.folded"));
    write_profile(&input);
    mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || Folded::read(&pipe)
    });
    report(&input, &pipe);
    report(&input, &file);
    assert_eq!(reader.join().unwrap().0, Folded::read(&file).0);
    assert_eq!(names(&folder), ["file.folded", "made.flamewalk", "pipe.folded"]);
}
