//! Pyroscope's requests, taken apart by the rules of protobuf's encoding and of the API's documentation alone.

use std::collections::BTreeMap;

use flamewalk_profile::{Labels, pprof};
use flamewalk_push::{Api, Endpoint, PushError, Pyroscope, SendError, Series, Sink};

use crate::profiles::{example, stacks, window};
use crate::server::{Answer, Server, answer};

/// A success of a unary call: an empty `push.v1.PushResponse`.
pub(crate) fn taken() -> Answer {
    answer("200 OK", "content-type: application/proto\r\n", b"")
}

/// The fields of a message that are byte strings, in their order; it has no others.
fn fields(mut message: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(message: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let (byte, rest) = message.split_first().unwrap();
            *message = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        assert_eq!(key & 7, 2, "a field is not length-delimited");
        let length = usize::try_from(varint(&mut message)).unwrap();
        let (field, rest) = message.split_at(length);
        message = rest;
        fields.push((key >> 3, field));
    }
    fields
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn series() -> Series {
    Series::new("shop/checkout").unwrap().label("region", "eu & co").unwrap().label("Zone", "ä").unwrap()
}

/// Whether a text is a random UUID as RFC 9562 has them.
fn is_uuid(text: &str) -> bool {
    let form = "xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx";
    text.len() == form.len()
        && text.chars().zip(form.chars()).all(|(c, like)| match like {
            'x' => c.is_ascii_digit() || ('a'..='f').contains(&c),
            'y' => "89ab".contains(c),
            _ => c == like,
        })
}

#[test]
fn a_push_is_a_unary_call_with_one_series_and_one_profile() {
    let server = Server::start([taken()]);
    let endpoint = Endpoint::new(&server.url()).unwrap().tenant("team-a").unwrap().bearer("secret").unwrap();
    let window = window();
    Pyroscope::new(endpoint, series()).send(&window).unwrap();
    let request = &server.requests(1)[0];
    assert_eq!(request.line, "POST /push.v1.PusherService/Push HTTP/1.1");
    for (name, value) in [
        ("content-type", "application/proto"),
        ("connect-protocol-version", "1"),
        ("x-scope-orgid", "team-a"),
        ("authorization", "Bearer secret"),
    ] {
        assert_eq!(request.header(name), Some(value), "{name}");
    }
    assert_eq!(request.header("content-encoding"), None);

    let [(1, series)] = fields(&request.body)[..] else { panic!("{:?}", fields(&request.body)) };
    let fields_of_series = fields(series);
    let (samples, labels): (Vec<_>, Vec<_>) = fields_of_series.iter().partition(|(number, _)| *number == 2);
    let labels: Vec<_> = labels
        .iter()
        .map(|(number, label)| {
            assert_eq!(*number, 1);
            let [(1, name), (2, value)] = fields(label)[..] else { panic!("{label:?}") };
            (text(name), text(value))
        })
        .collect();
    // Sorted by bytes, as the server stores them.
    let expected = [
        ("Zone", "ä"),
        ("__name__", "process_cpu"),
        ("region", "eu & co"),
        ("service_name", "shop/checkout"),
    ];
    assert_eq!(labels, expected);
    let [(_, sample)] = samples[..] else { panic!("{samples:?}") };
    let [(1, content), (2, id)] = fields(sample)[..] else { panic!("{sample:?}") };
    assert!(is_uuid(text(id)), "{}", text(id));

    assert_eq!(content[..2], [0x1f, 0x8b], "it is not compressed");
    let profile = pprof::read(content).unwrap();
    let sent = example();
    assert_eq!(stacks(&profile), stacks(&sent));
    assert_eq!(
        (profile.metadata.start, profile.metadata.duration),
        (sent.metadata.start, sent.metadata.duration)
    );
    assert_eq!(profile.metadata.event, sent.metadata.event);
    assert_eq!(profile.metadata.period, sent.metadata.period);
    // One series of each tenant, and not one of each thread.
    assert_eq!(profile.threads().len(), 0);
    let tenants: BTreeMap<Labels, u64> = profile.samples().fold(BTreeMap::new(), |mut tenants, sample| {
        *tenants.entry(profile.labels(sample.origin.labels).clone()).or_default() += sample.tally.weight;
        tenants
    });
    let tenant = |name: &str| -> Labels { [("tenant", name)].into_iter().collect() };
    assert_eq!(tenants, [(tenant("a"), 3_000_000), (tenant("b"), 12_000_000)].into());
}

#[test]
fn threads_are_sent_if_they_are_wanted() {
    let server = Server::start([taken()]);
    let endpoint = Endpoint::new(&server.url()).unwrap();
    Pyroscope::new(endpoint, series()).with_threads().send(&window()).unwrap();
    let request = &server.requests(1)[0];
    let sample = fields(fields(&request.body)[0].1).into_iter().find(|(number, _)| *number == 2).unwrap().1;
    assert_eq!(pprof::read(fields(sample)[0].1).unwrap().threads().len(), 2);
}

#[test]
fn the_older_way_in_has_everything_in_its_query() {
    let server = Server::start([answer("200 OK", "", b"")]);
    // Behind a path of a proxy's.
    let endpoint = Endpoint::new(&format!("{}/pyroscope/", server.url())).unwrap().basic("me", "it").unwrap();
    let mut sink = Pyroscope::new(endpoint, series()).api(Api::Ingest).unwrap();
    sink.send(&window()).unwrap();
    let request = &server.requests(1)[0];
    assert_eq!(
        request.line,
        "POST /pyroscope/ingest?name=shop%2Fcheckout%7BZone%3D%C3%A4%2Cregion%3Deu+%26+co%7D&from=1795000005\
         &until=1795000014&format=pprof&spyName=flamewalk&sampleRate=997 HTTP/1.1"
    );
    assert_eq!(request.header("authorization"), Some("Basic bWU6aXQ="));
    assert_eq!(request.header("content-type"), Some("application/octet-stream"));
    assert_eq!(stacks(&pprof::read(&request.body).unwrap()), stacks(&example()));
}

#[test]
fn labels_that_the_older_way_would_take_apart_are_refused() {
    let endpoint = || Endpoint::new("http://localhost").unwrap();
    for value in ["a,b", "a}", "{"] {
        let series = Series::new("a").unwrap().label("b", value).unwrap();
        let refused = Pyroscope::new(endpoint(), series).api(Api::Ingest).unwrap_err();
        assert!(matches!(refused, PushError::LabelValue { .. }), "{refused}");
    }
}

/// Events other than CPU time are of a type of their own.
#[test]
fn the_event_names_the_type() {
    for (event, expected) in [("cpu-timer", "process_cpu"), ("wall", "wall"), ("page-faults", "page_faults")]
    {
        let server = Server::start([taken()]);
        let mut window = window();
        window.profile.metadata.event.name = event.to_owned();
        Pyroscope::new(Endpoint::new(&server.url()).unwrap(), Series::new("a").unwrap())
            .send(&window)
            .unwrap();
        let request = &server.requests(1)[0];
        let label = fields(fields(&request.body)[0].1)[0].1;
        assert_eq!(
            fields(label).iter().map(|(_, part)| text(part)).collect::<Vec<_>>(),
            ["__name__", expected]
        );
    }
}

#[test]
fn what_is_no_answer_of_pyroscopes_is_not_taken_for_success() {
    let cases = [
        (answer("200 OK", "content-type: text/html\r\n", b"<html>Log in first</html>"), true),
        (answer("200 OK", "content-type: application/proto\r\n", b"\xff\xff"), true),
        (answer("302 Found", "location: http://localhost/\r\n", b""), false),
        (Answer::Bytes(b"SSH-2.0-OpenSSH\r\n".to_vec()), true),
        (Answer::Bytes(Vec::new()), true),
        (answer("503 Service Unavailable", "", b"not ready"), true),
        (
            answer("401 Unauthorized", "content-type: application/json\r\n", br#"{"message":"no org id"}"#),
            false,
        ),
        // Less than was promised.
        (
            Answer::Bytes(
                b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\ncontent-type: application/proto\r\n\r\n".to_vec(),
            ),
            true,
        ),
    ];
    for (answer, is_temporary) in cases {
        let shown = format!("{answer:?}");
        let server = Server::start([answer]);
        let mut sink = Pyroscope::new(Endpoint::new(&server.url()).unwrap(), series());
        let error = sink.send(&window()).expect_err(&shown);
        println!("{error}");
        assert_eq!(matches!(error, SendError::Temporary { .. }), is_temporary, "{shown}: {error}");
        assert!(!error.to_string().is_empty() && !error.to_string().contains('\n'), "{error}");
    }
}
