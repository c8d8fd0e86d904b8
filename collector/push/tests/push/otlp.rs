//! OTLP's requests, read by OpenTelemetry's own messages for Python (the packages `opentelemetry-proto` and `protobuf`).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flamewalk_push::{Endpoint, Otlp, SendError, Series, Sink};

use crate::profiles::{example, window};
use crate::server::{Server, answer};

/// The version of the packages whose messages are those that are sent.
const PACKAGES: [&str; 2] = ["opentelemetry-proto==1.45.2", "protobuf==6.33.1"];
const READER: &str = include_str!("otlp.py");

/// A folder with the packages, fetched once.
fn packages() -> PathBuf {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = parent.join(format!("otlp-{}", PACKAGES.join("-")));
    if !folder.exists() {
        // Put in place only when it is whole.
        let new = tempfile::tempdir_in(parent).unwrap();
        let installed = Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"])
            .arg(new.path())
            .args(PACKAGES)
            .output()
            .expect("python3 starts: install it and its pip, this test compares with packages from PyPI");
        assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
        std::fs::rename(new.path(), &folder).unwrap();
    }
    folder
}

/// What the reader says of a request's body.
fn read(body: &[u8]) -> String {
    let mut reader = Command::new("python3")
        .args(["-c", READER])
        .env("PYTHONPATH", packages())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    reader.stdin.take().unwrap().write_all(body).unwrap();
    let output = reader.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn sink(server: &Server) -> Otlp {
    let series = Series::new("checkout").unwrap().label("region", "eu").unwrap();
    Otlp::new(Endpoint::new(&server.url()).unwrap(), series)
}

const CONTENT_TYPE: &str = "content-type: application/x-protobuf\r\n";

#[test]
fn opentelemetrys_own_messages_read_what_is_sent() {
    let server = Server::start([answer("200 OK", CONTENT_TYPE, b"")]);
    let window = window();
    sink(&server).send(&window).unwrap();
    let request = &server.requests(1)[0];
    assert_eq!(request.line, "POST /v1development/profiles HTTP/1.1");
    assert_eq!(request.header("content-type"), Some("application/x-protobuf"));
    assert_eq!(request.header("content-encoding"), Some("gzip"));
    let id: String = window.id.iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = format!(
        "resource region=eu service.name=checkout
scope flamewalk {}
profile {id} cpu nanoseconds period cpu nanoseconds 1003009 at 1795000005000000007 for 10000000000
tenant=a thread.id=1 thread.name=worker | plugin@99 wasm main main.rs:7:3 < small small.rs:1:3 | 1000000
tenant=a thread.id=2 thread.name=worker | plugin@99 wasm main main.rs:7:3 < small small.rs:1:3 | 2000000
tenant=b thread.id=2 thread.name=worker | plugin@99 wasm main main.rs:7:3 | 4000000
tenant=b thread.id=2 thread.name=worker | plugin@99 wasm main main.rs:7:3; native [host] wasi_snapshot_preview1.fd_write | 8000000
",
        env!("CARGO_PKG_VERSION")
    );
    // The address is that of the youngest of the functions at a place, of which only the oldest has one here.
    let expected = expected.replace("@99 wasm main main.rs:7:3 < small", "@0 wasm main main.rs:7:3 < small");
    assert_eq!(read(&request.body), expected);
    assert_eq!(example().total().weight, 15_000_000);
}

#[test]
fn a_part_that_is_rejected_is_refused_with_the_reason() {
    // ExportProfilesServiceResponse { partial_success { rejected_profiles: 1, error_message: "too old" } }
    let partial = b"\x0a\x0b\x08\x01\x12\x07too old";
    let server = Server::start([answer("200 OK", CONTENT_TYPE, partial)]);
    let refused = sink(&server).send(&window()).unwrap_err();
    assert_eq!(refused, SendError::Refused { reason: "too old".to_owned() });
    // A warning is no refusal.
    let server = Server::start([answer("200 OK", CONTENT_TYPE, b"\x0a\x09\x12\x07too old")]);
    sink(&server).send(&window()).unwrap();
    for nonsense in [answer("200 OK", CONTENT_TYPE, b"\xff\xff"), answer("200 OK", "", b"ok")] {
        let server = Server::start([nonsense]);
        assert!(matches!(sink(&server).send(&window()), Err(SendError::Temporary { .. })));
    }
}
