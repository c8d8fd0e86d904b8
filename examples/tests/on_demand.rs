//! The server whose guests are profiled on demand does what it says: for `go tool pprof`, `curl` and our own client.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use flamewalk::profile::{Labels, Names, Profile, pprof};
use flamewalk_serve::{Ask, FetchError, fetch, offered_by};

struct Running {
    process: Child,
    url: String,
    socket: String,
    _runtime: tempfile::TempDir,
}

impl Running {
    fn start() -> Self {
        let runtime = tempfile::tempdir().unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_on_demand"))
            .arg("0")
            .env("XDG_RUNTIME_DIR", runtime.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut line = || lines.next().unwrap().unwrap();
        let (url, socket) = (line(), line());
        Self { process, url, socket, _runtime: runtime }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}: install it"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The names of the guests' functions, and the tenants.
fn content(profile: &Profile) -> (Vec<String>, Vec<String>) {
    profile.metadata.statistics.check().unwrap();
    let mut names: Vec<_> = Names::new(profile).all().map(str::to_owned).collect();
    names.sort();
    let tenants = profile.label_sets().filter_map(|(_, labels)| labels.get("tenant").map(str::to_owned));
    (names, tenants.collect())
}

#[test]
fn it_is_profiled_while_it_serves() {
    let running = Running::start();
    let folder = tempfile::tempdir().unwrap();
    // Go's own tool asks by itself.
    let mut pprof_tool = Command::new("go");
    pprof_tool.args(["tool", "pprof", "-top", "-seconds", "1", &running.url.replace("/debug/pprof/", "")]);
    let top = String::from_utf8(run(pprof_tool.env("PPROF_TMPDIR", folder.path()))).unwrap();
    let hottest = top.lines().skip_while(|line| !line.contains("flat%")).nth(1).unwrap();
    assert!(hottest.ends_with("work"), "{top}");
    assert!(top.lines().any(|line| line.ends_with("respond")), "{top}");

    // A scraper that comes again and again.
    for _ in 0..3 {
        let url = format!("{}profile?seconds=0.3&hz=499", running.url);
        let profile = pprof::read(&run(Command::new("curl").args(["--fail", "--silent", &url]))).unwrap();
        assert!(!profile.is_empty() && profile.metadata.period == Some(1_000_000_000 / 499));
        let functions = content(&profile).0;
        // On a busy machine there may be no sample of what is short.
        assert!(functions.iter().any(|name| name == "work"), "{functions:?}");
        assert!(
            functions.iter().all(|name| ["handle", "parse", "respond", "work"].contains(&name.as_str())),
            "{functions:?}"
        );
    }
    let url = format!("{}flamegraph?seconds=0.5&label=tenant=acme", running.url);
    let graph = String::from_utf8(run(Command::new("curl").args(["--fail", "--silent", &url]))).unwrap();
    assert!(graph.starts_with("<?xml") && graph.contains("respond"));

    // The tools of the same user.
    let process = running.process.id();
    let socket = offered_by(process).unwrap();
    assert_eq!(socket.to_str(), Some(running.socket.as_str()));
    let mut ask = Ask::default();
    ask.duration = Some(Duration::from_millis(500));
    let whole = fetch(&socket, process, &ask).unwrap();
    let mut both = content(&whole);
    both.1.sort();
    assert_eq!(both.1, ["acme", "globex"]);
    assert_eq!(whole.metadata.guest.as_deref(), Some("handler"));
    let acme: Labels = [("tenant", "acme")].into_iter().collect();
    ask.labels = acme;
    assert_eq!(content(&fetch(&socket, process, &ask).unwrap()).1, ["acme"]);
    ask.duration = Some(Duration::from_secs(301));
    let refused = fetch(&socket, process, &ask).unwrap_err();
    assert!(matches!(refused, FetchError::Refused { status: 400, .. }), "{refused}");
    assert_eq!(refused.to_string(), "301 seconds are too long; ask for 300 or less");
}
