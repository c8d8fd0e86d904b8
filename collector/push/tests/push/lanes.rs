//! Servers that are down, slow or talk nonsense: each window is counted once, and nobody else waits.

use std::net::TcpListener;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use flamewalk_profile::Profile;
use flamewalk_push::{
    Endpoint, Options, Pusher, Pyroscope, Retries, SendError, Series, Sink, SinkStatistics, Statistics,
    Window,
};

use crate::profiles::example;
use crate::pyroscope::taken;
use crate::server::{Answer, Server, answer};

fn options() -> Options {
    let mut options = Options::default();
    options.window = Duration::from_secs(1);
    options.retries.first = Duration::from_millis(10);
    options
}

fn pyroscope(url: &str, timeout: Duration) -> Box<dyn Sink> {
    let endpoint = Endpoint::new(url).unwrap().timeout(timeout);
    Box::new(Pyroscope::new(endpoint, Series::new("a").unwrap()))
}

/// Takes so many windows by one sink, and lets it end within `patience`.
fn pushed(mut options: Options, sink: Box<dyn Sink>, windows: u64, patience: Duration) -> SinkStatistics {
    if windows == 1 {
        // The only one is that of the stop, also if a second of the wall clock ends before it.
        options.window = Duration::from_secs(3_600);
    }
    let (told, taken) = mpsc::channel();
    let pusher = Pusher::start(options, vec![sink], move || {
        let _ = told.send(());
        Ok(example())
    });
    let pusher = pusher.unwrap();
    // The last one is that of the stop.
    (1..windows).for_each(|_| taken.recv().unwrap());
    let statistics = stopped(pusher, patience);
    assert_eq!((statistics.taken, statistics.missed), (windows, 0));
    statistics.sinks[0].1.clone()
}

fn stopped(pusher: Pusher, patience: Duration) -> Statistics {
    let statistics = pusher.stop(patience);
    for (name, of) in &statistics.sinks {
        println!("{name}: {of:?}");
        assert_eq!(of.given, statistics.taken, "{name}");
        assert_eq!(of.waiting, 0, "{name}");
        assert_eq!(of.given, of.delivered + of.empty + of.dropped + of.refused + of.abandoned, "{name}");
    }
    statistics
}

#[test]
fn what_fails_is_sent_again_as_the_same_profile() {
    let server = Server::start([
        answer("503 Service Unavailable", "", b""),
        answer("429 Too Many Requests", "retry-after: 0\r\n", b""),
        Answer::Bytes(Vec::new()),
        answer("200 OK", "content-type: text/html\r\n", b"<html>"),
        taken(),
    ]);
    let sink = pyroscope(&server.url(), Duration::from_secs(10));
    let statistics = pushed(options(), sink, 1, Duration::from_secs(60));
    assert_eq!((statistics.delivered, statistics.retries), (1, 4));
    assert!(statistics.last_error.unwrap().contains("text/html"));
    let requests = server.requests(5);
    assert!(
        requests.iter().all(|request| request.body == requests[0].body),
        "the profiles or their ids differ"
    );
}

#[test]
fn what_is_refused_is_not_sent_again() {
    let json = br#"{"code":"invalid_argument","message":"profile is too old"}"#;
    let server =
        Server::start([answer("400 Bad Request", "content-type: application/json\r\n", json), taken()]);
    let sink = pyroscope(&server.url(), Duration::from_secs(10));
    let statistics = pushed(options(), sink, 2, Duration::from_secs(60));
    assert_eq!((statistics.refused, statistics.delivered, statistics.retries), (1, 1, 0));
    assert_eq!(statistics.last_error.as_deref(), Some("400 Bad Request: profile is too old"));
    assert_eq!(server.requests(2).len(), 2);
}

#[test]
fn a_server_that_is_down_is_given_up_after_the_last_attempt() {
    // Nobody listens there any more.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut options = options();
    options.retries.attempts = 3;
    let sink = pyroscope(&format!("http://{address}"), Duration::from_secs(10));
    let statistics = pushed(options, sink, 1, Duration::from_secs(60));
    assert_eq!((statistics.abandoned, statistics.retries), (1, 2));
    assert!(statistics.last_error.unwrap().contains("refused"));
}

#[test]
fn who_stops_does_not_wait_for_a_server_that_is_down() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut options = options();
    options.retries.first = Duration::from_secs(3_600);
    options.retries.longest = Duration::from_secs(3_600);
    let sink = pyroscope(&format!("http://{address}"), Duration::from_secs(10));
    let statistics = pushed(options, sink, 2, Duration::ZERO);
    assert_eq!((statistics.abandoned, statistics.delivered), (2, 0));
}

/// A sink that sends nothing before its `works_from`th attempt.
struct BackSoon {
    attempts: u32,
    works_from: u32,
    retry_after: Option<Duration>,
    failed: mpsc::Sender<()>,
}

impl Sink for BackSoon {
    fn name(&self) -> String {
        "back soon".to_owned()
    }

    fn send(&mut self, _: &Window) -> Result<(), SendError> {
        self.attempts += 1;
        if self.attempts >= self.works_from {
            return Ok(());
        }
        // Asked for once only.
        let _ = self.failed.send(());
        Err(SendError::Temporary { reason: "not yet".to_owned(), retry_after: self.retry_after })
    }
}

/// It once was that a window whose next attempt was to be later than the end was given up at once, however much time was left.
#[test]
fn who_stops_tries_once_more() {
    let hour = Duration::from_secs(3_600);
    let stopped = |works_from: u32, retry_after: Option<Duration>| {
        let mut options = options();
        (options.retries.first, options.retries.longest) = (hour, hour);
        let (failed, has_failed) = mpsc::channel();
        let sink: Box<dyn Sink> = Box::new(BackSoon { attempts: 0, works_from, retry_after, failed });
        let pusher = Pusher::start(options, vec![sink], || Ok(example())).unwrap();
        has_failed.recv().unwrap();
        stopped(pusher, Duration::from_secs(60)).sinks[0].1.clone()
    };
    let back = stopped(2, None);
    assert_eq!((back.delivered, back.retries), (back.given, 1));
    // Of what was given while it ended there is one attempt.
    let down = stopped(u32::MAX, None);
    assert_eq!((down.abandoned, down.retries), (down.given, 1));
    // A server that asks to be left alone is.
    let asking = stopped(u32::MAX, Some(hour));
    assert_eq!((asking.abandoned, asking.retries), (asking.given, 0));
}

/// A sink that is stuck with its first window until it is let go.
struct Stuck {
    go: mpsc::Receiver<()>,
    sent: mpsc::Sender<Duration>,
    begin: Instant,
}

impl Sink for Stuck {
    fn name(&self) -> String {
        "stuck".to_owned()
    }

    fn send(&mut self, window: &Window) -> Result<(), SendError> {
        assert!(window.end >= window.begin);
        self.sent.send(self.begin.elapsed()).unwrap();
        // Once there is nobody who could let it go, it goes.
        let _ = self.go.recv();
        Ok(())
    }
}

#[test]
fn a_sink_that_is_stuck_keeps_the_latest_windows_and_holds_up_nobody() {
    let (let_go, go) = mpsc::channel();
    let (sent, stuck) = mpsc::channel();
    let server = Server::start([taken()]);
    let (told, taken) = mpsc::channel();
    let mut options = options();
    options.queue = 2;
    let sinks: Vec<Box<dyn Sink>> = vec![
        Box::new(Stuck { go, sent, begin: Instant::now() }),
        pyroscope(&server.url(), Duration::from_secs(10)),
    ];
    let pusher = Pusher::start(options, sinks, move || {
        let _ = told.send(());
        Ok(example())
    });
    let pusher = pusher.unwrap();
    stuck.recv().unwrap();
    // The first is being sent, two wait, and one had to go for each further one. The other server has got all of them.
    (0..5).for_each(|_| taken.recv().unwrap());
    assert_eq!(server.requests(5).len(), 5);
    let so_far = pusher.statistics().sinks;
    assert!(so_far[0].1.waiting == 3 && so_far[0].1.delivered == 0, "{so_far:?}");
    drop(let_go);
    let statistics = stopped(pusher, Duration::from_secs(60));
    let (given, of) = (statistics.taken, &statistics.sinks[0].1);
    // Those that came after it was let go are delivered as well.
    assert!(of.dropped >= 2 && of.delivered >= 3 && of.abandoned == 0, "{of:?}");
    assert_eq!(statistics.sinks[1].1.delivered, given);
}

#[test]
fn a_server_that_says_nothing_is_left_after_a_while() {
    let server = Server::start([Answer::Silence, taken()]);
    let sink = pyroscope(&server.url(), Duration::from_secs(2));
    let statistics = pushed(options(), sink, 1, Duration::from_secs(60));
    assert_eq!((statistics.delivered, statistics.retries), (1, 1));
    assert!(statistics.last_error.unwrap().contains("timeout"));
}

#[test]
fn windows_without_samples_are_not_sent() {
    let server = Server::start([taken()]);
    let mut profiles = [Profile::default(), example()].into_iter().cycle();
    let (told, taken) = mpsc::channel();
    let sinks = vec![pyroscope(&server.url(), Duration::from_secs(10))];
    let pusher = Pusher::start(options(), sinks, move || {
        let _ = told.send(());
        Ok(profiles.next().unwrap())
    });
    let pusher = pusher.unwrap();
    (0..2).for_each(|_| taken.recv().unwrap());
    let statistics = stopped(pusher, Duration::from_secs(60));
    let of = &statistics.sinks[0].1;
    assert_eq!((of.empty, of.delivered), (of.given.div_ceil(2), of.given / 2));
}

#[test]
fn profiles_that_are_not_there_are_counted() {
    let mut number = 0;
    let (told, taken) = mpsc::channel();
    let pusher = Pusher::start(options(), Vec::new(), move || {
        number += 1;
        let _ = told.send(());
        if number == 2 { Ok(example()) } else { Err(format!("no profile {number}").into()) }
    });
    let pusher = pusher.unwrap();
    (0..2).for_each(|_| taken.recv().unwrap());
    let statistics = stopped(pusher, Duration::ZERO);
    assert!(statistics.taken == 1 && statistics.missed >= 2, "{statistics:?}");
    assert_eq!(statistics.last_miss.unwrap(), format!("no profile {}", statistics.missed + 1));
}

#[test]
fn retries_end_with_the_pusher() {
    let retries = Retries::default();
    assert!(retries.first < retries.longest);
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let sinks = vec![pyroscope(&format!("http://{address}"), Duration::from_secs(10))];
    let (told, taken) = mpsc::channel();
    let pusher = Pusher::start(options(), sinks, move || {
        let _ = told.send(());
        Ok(example())
    });
    let pusher = pusher.unwrap();
    taken.recv().unwrap();
    // Returns at all.
    drop(pusher);
}
