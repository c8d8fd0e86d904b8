//! Sockets for the tools of the same user.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use flamewalk_serve::{Ask, FetchError, Options, ServeError, Server, fetch};

use crate::support::{Host, get_by_socket};

fn ask() -> Ask {
    let mut ask = Ask::default();
    ask.duration = Some(Duration::from_millis(300));
    ask
}

#[test]
fn a_profile_can_be_fetched_through_a_socket_that_is_the_users_own() {
    let host = Host::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("profiles.sock");
    let server = Server::unix(host.on_demand(Options::default()), &path).unwrap();
    assert_eq!(server.path(), Some(path.as_path()));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    // Of any name: who gets there has chosen the socket.
    assert_eq!(get_by_socket(&path, "/debug/pprof/").status, 200);
    let own = std::process::id();
    let profile = fetch(&path, own, &ask()).unwrap();
    assert!(!profile.is_empty());
    profile.metadata.statistics.check().unwrap();

    let mut labelled = ask();
    labelled.labels = [("tenant", "acme"), ("with space", "&=ä")].into_iter().collect();
    assert!(fetch(&path, own, &labelled).unwrap().is_empty());
    let mut fast = ask();
    fast.rate = Some(1_000_000);
    let refused = fetch(&path, own, &fast).unwrap_err();
    assert!(
        matches!(&refused, FetchError::Refused { status: 400, message } if message.contains("1000000 Hz")),
        "{refused}"
    );
    let other = fetch(&path, 1, &ask()).unwrap_err();
    assert!(matches!(other, FetchError::OtherProcess { expected: 1, .. }), "{other}");
    drop(server);
    assert!(!path.exists());
    assert!(matches!(fetch(&path, own, &ask()), Err(FetchError::Connection { .. })));
}

#[test]
fn what_is_at_the_path_is_replaced_only_if_it_is_a_dead_socket() {
    let host = Host::start();
    let folder = tempfile::tempdir().unwrap();
    let serve = |name: &str| Server::unix(host.on_demand(Options::default()), &folder.path().join(name));
    drop(UnixListener::bind(folder.path().join("dead")).unwrap());
    let first = serve("dead").unwrap();
    let taken = serve("dead").unwrap_err();
    assert!(matches!(taken, ServeError::Occupied { .. }), "{taken}");
    fs::write(folder.path().join("file"), "precious").unwrap();
    assert!(matches!(serve("file"), Err(ServeError::Occupied { .. })));
    assert_eq!(fs::read(folder.path().join("file")).unwrap(), b"precious");
    assert!(matches!(serve("none/socket"), Err(ServeError::Socket { .. })));
    // What somebody has put there meanwhile is not removed with the server.
    fs::remove_file(folder.path().join("dead")).unwrap();
    fs::write(folder.path().join("dead"), "precious").unwrap();
    drop(first);
    assert_eq!(fs::read(folder.path().join("dead")).unwrap(), b"precious");
}

/// Whoever else listens where a profile is looked for.
#[test]
fn answers_that_are_no_profile_are_refused() {
    use std::io::{Read, Write};
    let folder = tempfile::tempdir().unwrap();
    let answers: [&[u8]; 4] = [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 500 Oops\r\ncontent-length: 8\r\n\r\n\x1b[2Jo\nps",
    ];
    for (number, answer) in answers.into_iter().enumerate() {
        let path = folder.path().join(number.to_string());
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).unwrap() > 0);
            stream.write_all(answer).unwrap();
        });
        let error = fetch(&path, std::process::id(), &ask()).unwrap_err();
        server.join().unwrap();
        println!("{error}");
        assert!(match number {
            2 => matches!(error, FetchError::NotProfile { .. }),
            3 => matches!(error, FetchError::Refused { status: 500, .. }),
            _ => matches!(error, FetchError::Connection { .. }),
        });
        assert!(!error.to_string().contains(['\x1b', '\n']), "{error:?}");
    }
}
