//! `flamewalk attach`, with a program that has the profiler inside, or claims to.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use flamewalk::{Guest, Options, Profiler};
use flamewalk_serve::{OnDemand, Server};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, geteuid, seteuid};
use wasmtime::{Engine, Instance, Module, Store};

use crate::Program;
use crate::support::{Folded, Folder, Outcome, flamewalk};

/// What the program does at its socket; a test that finds it is the program.
const BEHAVIOUR: &str = "FLAMEWALK_TEST_BEHAVIOUR";
/// What it prints when guests run.
const READY: &str = "guests run";
const NOBODY: u32 = 65534;
const TENANTS: [&str; 2] = ["acme", "globex"];

/// The program that the tests profile: this test's own, in a process of its own.
fn program(behaviour: &str) -> ! {
    let profiler = Arc::new(Profiler::new(Options::default()).unwrap());
    let offer = || Server::offer(OnDemand::new(Arc::clone(&profiler), Default::default())).unwrap();
    let _server = match behaviour {
        "offers" => Some(offer()),
        "paused" => {
            profiler.start().unwrap();
            profiler.pause().unwrap();
            Some(offer())
        }
        "silent" => None,
        "as somebody else" => {
            let path = flamewalk_serve::path();
            let folder = path.parent().unwrap();
            std::fs::create_dir_all(folder).unwrap();
            for folder in [folder, folder.parent().unwrap()] {
                std::fs::set_permissions(folder, PermissionsExt::from_mode(0o777)).unwrap();
            }
            seteuid(Uid::from_raw(NOBODY)).unwrap();
            std::mem::forget(UnixListener::bind(path).unwrap());
            seteuid(Uid::from_raw(0)).unwrap();
            None
        }
        answer => {
            let answer = answer.to_owned();
            let path = flamewalk_serve::path();
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let listener = UnixListener::bind(path).unwrap();
            std::thread::spawn(move || listener.incoming().for_each(|peer| respond(peer.unwrap(), &answer)));
            None
        }
    };
    let engine = Engine::default();
    for tenant in TENANTS {
        let text = format!(
            "(module (func $work_of_{tenant} (export \"run\") (param i32)
               (loop (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))))"
        );
        let module = Module::new(&engine, &text).unwrap();
        profiler.register_module(&module, Guest::named(tenant)).unwrap();
        let profiler = Arc::clone(&profiler);
        std::thread::spawn(move || {
            let mut store = Store::new(module.engine(), ());
            profiler.attach(&mut store).unwrap().set([("tenant", tenant)].into_iter().collect());
            let run = Instance::new(&mut store, &module, &[]).unwrap();
            let run = run.get_typed_func::<i32, ()>(&mut store, "run").unwrap();
            loop {
                run.call(&mut store, 1_000_000).unwrap();
            }
        });
    }
    println!("{READY}");
    loop {
        std::thread::park();
    }
}

/// Answers a request with this, whatever it is; with nothing for ever, if it is `hangs`.
fn respond(mut peer: UnixStream, answer: &str) {
    let mut request = [0; 4096];
    assert!(peer.read(&mut request).unwrap() > 0);
    if answer == "hangs" {
        std::mem::forget(peer);
    } else {
        // A client that has seen enough is gone.
        let _ = peer.write_all(answer.as_bytes());
    }
}

struct Running {
    program: Program,
    runtime: tempfile::TempDir,
}

impl Running {
    fn start(behaviour: &str) -> Self {
        let runtime = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "inside::a_program_that_offers_profiles_is_asked_for_them", "--nocapture"])
            .env(BEHAVIOUR, behaviour)
            .env("XDG_RUNTIME_DIR", runtime.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let program = Program(child);
        assert!(lines.map_while(Result::ok).any(|line| line.ends_with(READY)), "{behaviour}");
        Self { program, runtime }
    }

    fn attach(&self, arguments: &[&str]) -> Command {
        let mut command = flamewalk("attach");
        command.arg(self.program.id().to_string()).args(arguments);
        command
    }

    fn socket(&self) -> PathBuf {
        self.runtime.path().join(format!("flamewalk/{}.sock", self.program.id()))
    }

    /// The folded stacks, and what was said.
    fn profile(&self, arguments: &[&str]) -> (Folded, String) {
        let folder = Folder::new();
        let path = folder.path("out.folded");
        let outcome = Outcome::of(self.attach(arguments).arg("-o").arg(&path).output().unwrap());
        assert_eq!(outcome.status, Some(0), "{}", outcome.stderr);
        (Folded::read(&path), outcome.stderr)
    }

    /// What was said on the way to nothing.
    fn refusal(&self, arguments: &[&str]) -> String {
        let folder = Folder::new();
        let path = folder.path("out.folded");
        let outcome =
            Outcome::of(self.attach(arguments).args(["-d", "1", "-o"]).arg(&path).output().unwrap());
        assert_eq!(outcome.status, Some(125), "{}", outcome.stderr);
        assert!(!path.exists(), "no empty file is left behind");
        outcome.stderr
    }
}

/// Whether a guest's work is there.
fn has_work_of(folded: &Folded, tenant: &str) -> bool {
    let work = format!("work_of_{tenant}");
    folded.0.iter().any(|(stack, _)| stack.iter().any(|frame| frame.ends_with(&work)))
}

#[test]
fn a_program_that_offers_profiles_is_asked_for_them() {
    if let Ok(behaviour) = std::env::var(BEHAVIOUR) {
        program(&behaviour);
    }
    let running = Running::start("offers");
    let (folded, said) = running.profile(&["-d", "3"]);
    let expected = format!("from inside, at {}\n", running.socket().display());
    assert!(said.contains(&expected) && !said.contains("from outside"), "{said}");
    // It was asked several times.
    assert!(!said.contains("merged"), "{said}");
    assert!(TENANTS.iter().all(|tenant| has_work_of(&folded, tenant)), "{folded:?}");
    // Outside nobody knows of labels.
    let (folded, _) = running.profile(&["-d", "1", "--freq", "499", "--inside", "--label", "tenant=acme"]);
    assert!(has_work_of(&folded, "acme") && !has_work_of(&folded, "globex"), "{folded:?}");
    let twice = running.refusal(&["--label", "tenant=acme", "--label", "tenant=globex"]);
    assert!(twice.contains("`--label` names `tenant` twice"), "{twice}");
    let nobody = running.refusal(&["--label", "tenant=nobody"]);
    assert!(nobody.contains("no guest with these labels ran"), "{nobody}");

    let viewed = Outcome::of(running.attach(&["-d", "6", "--top"]).output().unwrap());
    assert_eq!(viewed.status, Some(0), "{}", viewed.stderr);
    assert!(viewed.stdout.matches("samples of guests").count() >= 2, "{}", viewed.stdout);
    assert!(viewed.stdout.contains("work_of_acme"), "{}", viewed.stdout);
}

/// All time of a profile that is made of several answers is in it but what passes between them.
#[test]
fn several_answers_are_one_profile() {
    let running = Running::start("offers");
    let folder = Folder::new();
    let path = folder.path("out.flamewalk");
    let started = Instant::now();
    let outcome = Outcome::of(running.attach(&["-d", "5", "-o"]).arg(&path).output().unwrap());
    let elapsed = started.elapsed().as_secs_f64();
    assert_eq!(outcome.status, Some(0), "{}", outcome.stderr);
    let profile = flamewalk::profile::native::read(&std::fs::read(&path).unwrap()).unwrap();
    profile.metadata.statistics.check().unwrap();
    assert!(profile.metadata.notices.is_empty(), "{:?}", profile.metadata.notices);
    let seconds = profile.metadata.duration.unwrap().as_secs_f64();
    // No time twice, and no stretch is missing: without the shortest, of half a second, there would be 4.5 at most. Making
    // and sending the answers takes less than a tenth of a second of the five together, on a machine with much else to do.
    assert!((4.5..elapsed).contains(&seconds), "{seconds} of {elapsed}");
    assert!(profile.metadata.real_rate.is_some() && profile.metadata.asked_rate.is_some());
    assert!(profile.metadata.command[0].contains("attach"), "{:?}", profile.metadata.command);
    assert_eq!(profile.metadata.guest, Some(format!("process {}", running.program.id())));
    assert_eq!(profile.threads().count(), TENANTS.len());
    assert_eq!(profile.label_sets().filter(|(_, labels)| labels.get("tenant").is_some()).count(), 2);
}

#[test]
fn what_can_only_be_done_from_outside_is() {
    let running = Running::start("offers");
    let (folded, said) = running.profile(&["-d", "1", "--outside"]);
    assert!(said.contains("from outside: as --outside needs"), "{said}");
    assert!(has_work_of(&folded, "acme") && has_work_of(&folded, "globex"));
    let tid = running.program.id().to_string();
    for options in [&["--stack-bytes", "8192"][..], &["--host-frames"], &["--wait"]] {
        let (_, said) = running.profile(&[&["-d", "1"], options].concat());
        assert!(said.contains(&format!("from outside: as {} needs", options[0])), "{said}");
    }
    for option in [&["--tid", &tid][..], &["--outside"], &["--host-frames"]] {
        for needs_inside in [&["--inside"][..], &["--label", "tenant=acme"]] {
            let refused = running.refusal(&[needs_inside, option].concat());
            assert!(refused.contains("cannot be used with"), "{refused}");
        }
    }
}

#[test]
fn ctrl_c_keeps_what_was_collected() {
    let running = Running::start("offers");
    let folder = Folder::new();
    let path = folder.path("out.folded");
    let mut attach = running.attach(&["-o"]).arg(&path).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(attach.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.contains("from inside"), "{line}");
    kill(Pid::from_raw(attach.id() as i32), Signal::SIGINT).unwrap();
    assert_eq!(attach.wait().unwrap().code(), Some(0));
    assert!(has_work_of(&Folded::read(&path), "acme"));
}

#[test]
fn a_program_that_ends_leaves_what_it_has_answered() {
    let mut running = Running::start("offers");
    let folder = Folder::new();
    let path = folder.path("out.folded");
    let mut attach = running.attach(&["-d", "60", "-o"]).arg(&path).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(attach.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.contains("from inside"), "{line}");
    running.program.0.kill().unwrap();
    running.program.0.wait().unwrap();
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert_eq!(attach.wait().unwrap().code(), Some(0), "{rest}");
    assert!(rest.contains("has ended while it was sampled"), "{rest}");
    assert!(has_work_of(&Folded::read(&path), "acme"));
}

#[test]
fn a_program_without_profiles_is_sampled_from_outside() {
    let running = Running::start("silent");
    let (folded, said) = running.profile(&["-d", "1"]);
    assert!(said.contains("from outside: process") && said.contains("offers no profiles"), "{said}");
    assert!(has_work_of(&folded, "acme"));
    for options in [&["--inside"][..], &["--label", "tenant=acme"]] {
        let refused = running.refusal(options);
        assert_eq!(refused.lines().count(), 1, "{refused}");
        assert!(refused.contains("offers no profiles from inside"), "{refused}");
    }
    // Somebody else listens where it would.
    std::fs::create_dir(running.runtime.path().join("flamewalk")).unwrap();
    let _listener = UnixListener::bind(running.socket()).unwrap();
    let (folded, said) = running.profile(&["-d", "1"]);
    let other = format!("belongs to process {} of user", std::process::id());
    assert!(said.contains(&other) && said.contains("from outside"), "{said}");
    assert!(has_work_of(&folded, "acme"));
    assert!(running.refusal(&["--inside"]).contains(&other));
}

#[test]
fn a_socket_that_gives_no_profile_is_left_alone() {
    let refusal = "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 4\r\n\r\nbusy";
    let nonsense = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
    for (behaviour, sentence) in [
        (refusal, "busy"),
        (nonsense, "is no profile"),
        ("SSH-2.0-OpenSSH\r\n", "cannot ask"),
        ("hangs", "has not answered"),
        ("paused", "the profiler is paused"),
        ("as somebody else", "was made by user 65534"),
    ] {
        // Only root can become somebody else and come back.
        if behaviour == "as somebody else" && !geteuid().is_root() {
            continue;
        }
        let running = Running::start(behaviour);
        let (folded, said) = running.profile(&["-d", "1"]);
        assert!(said.contains("from outside: process") && said.contains(sentence), "{said}");
        assert!(has_work_of(&folded, "acme"), "{behaviour}");
        if behaviour != "hangs" {
            let refused = running.refusal(&["--inside"]);
            assert!(refused.contains(sentence) && refused.lines().count() == 1, "{refused}");
        }
    }
}
