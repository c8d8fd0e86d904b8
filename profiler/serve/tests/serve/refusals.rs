//! Requests that cannot be answered: the right status, one sentence, and a server that goes on.

use flamewalk_serve::{Options, ServeError, Server};

use crate::support::{Host, begin, get, request, send, wait_until_under_way};

#[test]
fn a_sentence_says_what_is_wrong() {
    let host = Host::start();
    let server = host.serve(Options::default());
    let address = server.address().unwrap();
    for (method, path, status, sentence) in [
        ("GET", "/debug/pprof/profile?seconds=301", 400, "301 seconds are too long; ask for 300 or less"),
        ("GET", "/debug/pprof/profile?seconds=1&hz=0", 400, "a rate of 0 Hz is out of range"),
        (
            "GET",
            "/debug/pprof/profile?seconds=1&hz=4294967295",
            400,
            "a rate of 4294967295 Hz is out of range",
        ),
        ("GET", "/debug/pprof/profile?secnds=1", 400, "there is no parameter `secnds`"),
        ("HEAD", "/debug/pprof/profile?secnds=1", 400, ""),
        ("GET", "/debug/pprof/heap", 404, "there is nothing here; /debug/pprof/ lists what there is"),
        ("GET", "/../../etc/passwd", 404, "there is nothing here"),
        ("POST", "/debug/pprof/profile", 405, "POST is not possible here; use GET"),
        ("DELETE", "/debug/pprof/", 405, "DELETE is not possible here; use GET"),
    ] {
        let response = send(address, &request(method, path, "")).unwrap();
        assert_eq!(response.status, status, "{method} {path}: {}", response.text());
        assert!(response.text().starts_with(sentence), "{method} {path}: {}", response.text());
        assert!(response.text().lines().count() <= 1);
        assert_eq!(response.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(response.header("x-go-pprof"), Some("1"));
        assert_eq!(response.header("allow"), (status == 405).then_some("get, head"));
    }
}

#[test]
fn there_is_room_for_so_many_and_the_others_are_told_when_to_come_back() {
    let host = Host::start();
    let mut options = Options::default();
    options.max_requests = 2;
    let server = host.serve(options);
    let clients = [(); 2].map(|()| begin(&server, "/debug/pprof/profile?seconds=200"));
    wait_until_under_way(&server, 2);
    let response = get(&server, "/debug/pprof/profile?seconds=2.5");
    assert_eq!((response.status, response.header("retry-after")), (429, Some("3")));
    assert!(response.text().starts_with("2 profiles are being taken already"), "{}", response.text());
    drop(clients);
    wait_until_under_way(&server, 0);
    assert_eq!(get(&server, "/debug/pprof/profile?seconds=0.1").status, 200);
}

#[test]
fn a_rate_that_others_do_not_have_and_a_pause_are_conflicts() {
    let host = Host::start();
    let server = host.serve(Options::default());
    host.profiler.start().unwrap();
    let response = get(&server, "/debug/pprof/profile?seconds=0.1&hz=499");
    assert_eq!(response.status, 409);
    assert!(response.text().contains("at 997 Hz"), "{}", response.text());
    assert_eq!(get(&server, "/debug/pprof/profile?seconds=0.1&hz=997").status, 200);
    host.profiler.pause().unwrap();
    let response = get(&server, "/debug/pprof/profile?seconds=0.1");
    assert_eq!(
        (response.status, response.text()),
        (409, "the profiler is paused; try again when it goes on\n")
    );
    host.profiler.resume().unwrap();
    assert_eq!(get(&server, "/debug/pprof/profile?seconds=0.1").status, 200);
    assert!(host.profiler.is_running() && !host.profiler.is_paused());
}

#[test]
fn nonsense_of_any_size_is_refused_and_forgotten() {
    let host = Host::start();
    let server = host.serve(Options::default());
    let address = server.address().unwrap();
    let mebibyte = "x".repeat(1 << 20);
    let long_path = request("GET", &format!("/debug/pprof/profile?seconds={mebibyte}"), "");
    let long_head = request("GET", "/debug/pprof/", &format!("x: {mebibyte}\r\n"));
    let many_headers = request("GET", "/debug/pprof/", &"x: y\r\n".repeat(10_000));
    for bytes in [
        long_path,
        long_head,
        many_headers,
        b"\x16\x03\x01\x02\0\x01\0\xfc\x03\x03".repeat(100),
        vec![b'\n'; 1 << 20],
    ] {
        let response = send(address, &bytes);
        assert!(response.is_none_or(|response| [400, 414, 431].contains(&response.status)));
    }
    // A body that is announced and never comes is not waited for.
    let response = send(address, &request("GET", "/debug/pprof/stats", "content-length: 1000000000000\r\n"));
    assert_eq!(response.unwrap().status, 200);
    assert_eq!(get(&server, "/debug/pprof/").status, 200);
}

/// A web page whose name has come to mean this machine, and one that sends requests elsewhere.
#[test]
fn web_pages_of_others_get_nothing() {
    let host = Host::start();
    let server = host.serve(Options::default());
    let address = server.address().unwrap();
    let ask = |host: &str, more: &str| {
        let request = format!("GET /debug/pprof/ HTTP/1.1\r\nhost: {host}\r\n{more}\r\n");
        send(address, request.as_bytes()).unwrap().status
    };
    assert_eq!(ask("rebound.example.com:6060", ""), 421);
    assert_eq!(ask("localhost:6060", "sec-fetch-site: cross-site\r\nsec-fetch-dest: empty\r\n"), 403);
    assert_eq!(ask("127.0.0.1:6060", "sec-fetch-site: none\r\nsec-fetch-dest: document\r\n"), 200);
}

#[test]
fn addresses_that_others_can_reach_are_refused() {
    let host = Host::start();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        let refused = Server::tcp(host.on_demand(Options::default()), address.parse().unwrap()).unwrap_err();
        assert!(matches!(refused, ServeError::NotLoopback { .. }), "{refused}");
    }
    let server = host.serve(Options::default());
    let taken = Server::tcp(host.on_demand(Options::default()), server.address().unwrap()).unwrap_err();
    assert!(matches!(taken, ServeError::Listen { .. }), "{taken}");
}
