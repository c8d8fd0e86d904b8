//! What is answered: profiles of the time between a request and its answer, each in its form.

use std::time::Instant;

use flamewalk::Error;
use flamewalk::profile::{Metadata, Names, Profile, folded, native, pprof};
use flamewalk_serve::Options;

use crate::support::{Host, TENANTS, begin, get, request, send, wait_until_under_way};

/// The names of the functions, sorted.
fn functions(profile: &Profile) -> Vec<String> {
    let mut names: Vec<_> = Names::new(profile).all().map(str::to_owned).collect();
    names.sort();
    names
}

const BOTH: [&str; 2] = ["acme!work_of_acme", "globex!work_of_globex"];

#[test]
fn each_page_is_what_its_name_says() {
    let host = Host::start();
    let server = host.serve(Options::default());
    let page = |name: &str| {
        let response = get(&server, &format!("/debug/pprof/{name}"));
        assert_eq!(response.status, 200, "{name}: {}", response.text());
        assert_eq!(response.header("cache-control"), Some("no-store"));
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
        let content_type = response.header("content-type").unwrap().to_owned();
        (content_type, response)
    };
    let (content_type, index) = page("");
    assert_eq!(content_type, "text/html; charset=utf-8");
    for name in ["profile", "flamegraph", "report", "folded", "flamewalk", "stats"] {
        assert!(index.text().contains(&format!("<a href=\"{name}")), "{}", index.text());
    }

    let (content_type, response) = page("profile?seconds=0.3");
    assert_eq!(content_type, "application/octet-stream");
    assert_eq!(response.header("content-disposition"), Some("attachment; filename=\"profile.pb.gz\""));
    assert_eq!(functions(&pprof::read(&response.body).unwrap()), BOTH);
    let (content_type, response) = page("folded?seconds=0.3");
    assert_eq!(content_type, "text/plain; charset=utf-8");
    assert_eq!(folded::read(&*response.body).unwrap().stacks().len(), 2);
    let (_, response) = page("flamewalk?seconds=0.3&hz=499");
    let profile = native::read(&response.body).unwrap();
    assert_eq!(functions(&profile), BOTH);
    assert_eq!(profile.metadata.asked_rate, Some(499.0));
    profile.metadata.statistics.check().unwrap();
    let (content_type, response) = page("flamegraph?seconds=0.3");
    assert_eq!(content_type, "image/svg+xml");
    assert!(response.text().contains("work_of_acme"));
    let (content_type, response) = page("report?seconds=0.3");
    assert_eq!(content_type, "text/html; charset=utf-8");
    assert!(response.text().starts_with("<!DOCTYPE html>"));

    let (content_type, response) = page("stats");
    assert_eq!(content_type, "application/json");
    let stats: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(stats["running"], false);
    assert_eq!(stats["requests"]["answered"], 6);
    // Nothing is left behind: the profiler is as it was, and its rate as well.
    assert!(matches!(host.profiler.statistics(), Err(Error::NotRunning)));
    assert_eq!(host.profiler.rate().unwrap(), 997);
}

#[test]
fn labels_let_nothing_of_others_through() {
    let host = Host::start();
    let server = host.serve(Options::default());
    for tenant in TENANTS {
        let response = get(&server, &format!("/debug/pprof/flamewalk?seconds=0.5&label=tenant={tenant}"));
        let profile = native::read(&response.body).unwrap();
        assert_eq!(functions(&profile), [format!("work_of_{tenant}")]);
        assert_eq!(profile.threads().len(), 1);
        let other = TENANTS.iter().find(|other| **other != tenant).unwrap();
        assert!(!profile.label_sets().any(|(_, labels)| labels.get("tenant") == Some(other)));
    }
    let response = get(&server, "/debug/pprof/profile?seconds=0.1&label=tenant=nobody");
    assert_eq!(response.status, 200);
    assert!(pprof::read(&response.body).unwrap().is_empty());
    let response = get(&server, "/debug/pprof/flamegraph?seconds=0.1&label=tenant=nobody");
    assert_eq!(response.status, 404);
    assert!(response.text().starts_with("there are no samples"), "{}", response.text());
}

/// Several requests and a profiler that runs anyhow: each gets the time that it asked for, and what one has got is not
/// missing in another.
#[test]
fn requests_share_the_ticks_and_take_nothing_from_each_other() {
    let host = Host::start();
    let server = host.serve(Options::default());
    host.profiler.start().unwrap();
    let profiles: Vec<(f64, Profile)> = std::thread::scope(|scope| {
        let requests = [0.5, 1.0, 1.5].map(|seconds| {
            let server = &server;
            scope.spawn(move || {
                let begin = Instant::now();
                let response = get(server, &format!("/debug/pprof/flamewalk?seconds={seconds}"));
                assert_eq!(response.status, 200, "{}", response.text());
                (begin.elapsed().as_secs_f64(), native::read(&response.body).unwrap())
            })
        });
        requests.map(|request| request.join().unwrap()).into()
    });
    let own = host.profiler.stop(Metadata::default()).unwrap();
    own.metadata.statistics.check().unwrap();
    assert!(!host.profiler.is_running());
    for (asked, (took, profile)) in [0.5, 1.0, 1.5].into_iter().zip(&profiles) {
        let statistics = &profile.metadata.statistics;
        statistics.check().unwrap();
        let duration = profile.metadata.duration.unwrap().as_secs_f64();
        assert!((asked..*took).contains(&duration), "{asked} s: {duration} s of {took} s");
        assert_eq!(functions(profile), BOTH);
        // No thread has more CPU time than there was time, but for what its first tick stands for: a period, or more if the
        // machine was away for a moment.
        let most = TENANTS.len() as f64 * (duration + 1.65 / 997.0 + 0.01);
        let weight = profile.total().weight as f64 / 1e9;
        assert!(weight > 0.0 && weight <= most, "{asked} s: {weight} s");
        assert!(own.total().weight >= profile.total().weight);
        assert_eq!(statistics.total_lost().samples, 0);
    }
    assert!(own.metadata.duration.unwrap().as_secs_f64() >= 1.5);
}

#[test]
fn a_client_that_goes_away_ends_its_profile() {
    let host = Host::start();
    let server = host.serve(Options::default());
    let client = begin(&server, "/debug/pprof/profile?seconds=300");
    wait_until_under_way(&server, 1);
    drop(client);
    wait_until_under_way(&server, 0);
    // Nothing samples any more, so that another rate is possible.
    assert_eq!(get(&server, "/debug/pprof/profile?seconds=0.1&hz=199").status, 200);
}

#[test]
fn a_server_that_goes_ends_what_is_under_way() {
    let host = Host::start();
    let server = host.serve(Options::default());
    let _client = begin(&server, "/debug/pprof/profile?seconds=300");
    wait_until_under_way(&server, 1);
    drop(server);
    let window = host.profiler.window(Some(199)).unwrap();
    drop(window);
}

#[test]
fn head_has_the_head_and_takes_no_profile() {
    let host = Host::start();
    let server = host.serve(Options::default());
    let response = send(server.address().unwrap(), &request("HEAD", "/debug/pprof/profile?seconds=300", ""));
    let response = response.unwrap();
    assert_eq!((response.status, response.body.len()), (200, 0));
    assert_eq!(response.header("content-type"), Some("application/octet-stream"));
}
