//! Reports in a real browser: what they show is compared with what is counted here stack by stack.
//!
//! The scenarios beside this file click, type and look; their pictures end up in Cargo's folder for tests.

mod browser;
mod expected;
mod profiles;

use flamewalk_flamegraphs::{
    comparison::{Comparison, ComparisonOptions},
    report::{ReportOptions, html, html_comparison},
};
use flamewalk_profile::{FrameKind, Profile};
use serde_json::json;

use self::expected::{around, filtered, frames, lines, matched, percent, places, reversed, rows, stacks};

fn page(profile: &Profile, options: &ReportOptions) -> Vec<u8> {
    let mut page = Vec::new();
    html(profile, options, &mut page).unwrap();
    page
}

/// What the page shows of those samples that pass a filter.
fn figures(profile: &Profile, part: &Profile) -> serde_json::Value {
    json!({
        "rows": rows(part),
        "share": percent(part.total().weight, profile.total().weight),
        "samples": part.total().samples,
    })
}

#[test]
fn a_report_shows_what_was_sampled() {
    let profile = profiles::everything();
    let all = stacks(&profile);
    let whole = profile.total().weight;
    let of_thread = |name: &'static str| {
        let profile = &profile;
        filtered(profile, move |sample| {
            let thread = sample.origin.thread.map(|id| profile.thread(id));
            thread.is_some_and(|thread| thread.name.as_deref() == Some(name))
        })
    };
    let of_tenant =
        filtered(&profile, |sample| profile.labels(sample.origin.labels).get("tenant") == Some("umbrella"));
    let of_time =
        filtered(&profile, |sample| sample.origin.slice.is_some_and(|slice| (25..50).contains(&slice)));
    let in_host_calls = filtered(&profile, |sample| {
        let frames = profile.stack(sample.stack).frames;
        frames.iter().any(|&id| profile.frame(id).kind == FrameKind::HostCall)
    });
    let around_render = |callers| {
        let part = around(&all, "render", callers);
        json!({ "frames": frames(&part, whole), "weight": part.iter().map(|(_, weight)| weight).sum::<u64>() })
    };
    // The first frame of this name in the second row, from the left.
    const CALLER: &[&str] = &["scan", "parse"];
    let expected = json!({
        "whole": whole,
        "hostile": flamewalk_profile::printable(profiles::HOSTILE),
        "frames": frames(&all, whole),
        "reversed": frames(&reversed(&all), whole),
        "callers": around_render(true),
        "callees": around_render(false),
        "all": figures(&profile, &profile),
        "worker": figures(&profile, &of_thread("worker")),
        "umbrella": figures(&profile, &of_tenant),
        "quarter": figures(&profile, &of_time),
        "hostCalls": figures(&profile, &in_host_calls),
        "text": matched(&all, |name| name.to_lowercase().contains("io::write")),
        "expression": matched(&all, |name| name.starts_with("parse") || name.ends_with("grow")),
        "renderPlaces": places(&profile, &["main", "render"], false),
        "callerPlaces": places(&profile, CALLER, true),
        "lines": lines(&profile, profiles::SOURCE_FILE),
    });
    browser::run("everything", &page(&profile, &profiles::with_source()), &expected);
}

/// A page that takes seconds to appear is not looked at. What is allowed is a multiple of what any page with the same
/// data takes, in the time that the page's thread runs: the clock on the wall also measures other tests.
#[test]
fn a_hundred_thousand_stacks_are_drawn_at_once() {
    let profile = profiles::large(100_000);
    let page = page(&profile, &ReportOptions::default());
    assert!(page.len() < 5_000_000, "{} bytes", page.len());
    browser::run("large", &page, &json!({ "samples": profile.total().samples }));
}

#[test]
fn a_profile_without_samples_or_details_is_shown() {
    let mut profile = Profile::default();
    browser::run("sparse", &page(&profile, &ReportOptions::default()), &json!({ "counted": "No samples" }));

    let frame = profile.intern(flamewalk_profile::Frame::guest("only"));
    profile.add(&[frame], flamewalk_profile::Tally { samples: 0, weight: 7 }).unwrap();
    browser::run("sparse", &page(&profile, &ReportOptions::default()), &json!({ "counted": "weight 7" }));

    // As deep as a hostile file likes.
    let mut profile = Profile::default();
    let frames = ["ping", "pong"].map(|name| profile.intern(flamewalk_profile::Frame::guest(name)));
    let stack: Vec<_> = frames.into_iter().cycle().take(20_000).collect();
    profile.add(&stack, flamewalk_profile::Tally { samples: 5, weight: 5 }).unwrap();
    browser::run(
        "sparse",
        &page(&profile, &ReportOptions::default()),
        &json!({ "counted": "weight 5 in 5 samples" }),
    );
}

/// The new build parses slower, has lost a function and got another one; a function's hash is another.
#[test]
fn a_comparison_shows_either_build_and_their_difference() {
    const BASE_HASH: &str = "app::step::h0123456789abcdef";
    const NEW_HASH: &str = "app::step::hfedcba9876543210";
    let base = profiles::runs(
        &[(&["main", "parse"], 3_000), (&["main", BASE_HASH, "old"], 2_000), (&["main", "render"], 5_000)],
        3,
    );
    let new = profiles::runs(
        &[(&["main", "parse"], 4_500), (&["main", NEW_HASH, "fresh"], 2_000), (&["main", "render"], 5_000)],
        4,
    );
    for work in [None, Some((10.0, 10.0))] {
        let mut options = ComparisonOptions::default();
        options.work = work;
        let comparison = Comparison::new(&base, &new, &options).unwrap();
        let mut page = Vec::new();
        html_comparison(&base, &new, &comparison, &ReportOptions::default(), &mut page).unwrap();

        let sides = [
            profiles::together(&base, |name| if name == BASE_HASH { NEW_HASH } else { name }),
            profiles::together(&new, |name| name),
        ];
        let side = |profile: &Profile| {
            let umbrella = filtered(profile, |sample| {
                profile.labels(sample.origin.labels).get("tenant") == Some("umbrella")
            });
            json!({
                "frames": frames(&stacks(profile), profile.total().weight),
                "whole": profile.total().weight,
                "all": figures(profile, profile),
                "umbrella": figures(profile, &umbrella),
            })
        };
        let vanished = [vec!["main", NEW_HASH, "old"]];
        let functions: Vec<_> = comparison
            .functions
            .iter()
            .map(|function| {
                json!({
                    "name": function.name,
                    "base": function.base_name,
                    "self": function.own.leading().estimate,
                    "total": function.total.leading().estimate,
                    "selfIsSignificant": function.own.is_significant(),
                    "totalIsSignificant": function.total.is_significant(),
                    "missed": function.own.leading().detectable.filter(|_| !function.own.is_significant()),
                })
            })
            .collect();
        let parse = comparison.functions.iter().find(|function| function.name == "parse").unwrap();
        assert!(parse.own.is_significant(), "the page has something to show");
        let paths: Vec<_> = comparison
            .paths
            .iter()
            .map(|path| {
                let names: Vec<_> =
                    path.functions.iter().map(|&function| &comparison.functions[function].name).collect();
                json!({ "change": path.total.leading().estimate, "names": names })
            })
            .collect();
        assert!(paths.len() > 1);
        let expected = json!({
            "paths": paths,
            "base": side(&sides[0]),
            "new": side(&sides[1]),
            "functions": functions,
            "vanished": vanished,
            "perWork": work.is_some(),
        });
        browser::run("comparison", &page, &expected);
    }
}
