//! What a request asks for.

use std::time::Duration;

use flamewalk::profile::Labels;
use http::request::Parts;
use http::{HeaderMap, Method};

use crate::on_demand::Options;
use crate::refusal::Refusal;

/// What there is to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    Index,
    Stats,
    Profile(Kind),
}

/// In what form a profile is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Pprof,
    Flamegraph,
    Report,
    Folded,
    Native,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Pprof, Self::Flamegraph, Self::Report, Self::Folded, Self::Native];

    /// The last part of its path.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pprof => "profile",
            Self::Flamegraph => "flamegraph",
            Self::Report => "report",
            Self::Folded => "folded",
            Self::Native => "flamewalk",
        }
    }
}

/// How to sample.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) duration: Duration,
    /// In Hz.
    pub(crate) rate: Option<u32>,
    pub(crate) labels: Option<Labels>,
}

/// Which page a request is for.
pub(crate) fn page(head: &Parts, options: &Options) -> Result<Page, Refusal> {
    check_site(&head.headers)?;
    let path = head.uri.path();
    let known = || {
        let prefix = options.prefix.trim_end_matches('/');
        match path.strip_prefix(prefix)?.strip_prefix('/')? {
            "" => Some(Page::Index),
            "stats" => Some(Page::Stats),
            name => Kind::ALL.into_iter().find(|kind| kind.name() == name).map(Page::Profile),
        }
    };
    let page = known().ok_or_else(|| Refusal::NotFound { index: options.index() })?;
    if ![Method::GET, Method::HEAD].contains(&head.method) {
        return Err(Refusal::Method { method: head.method.to_string() });
    }
    Ok(page)
}

/// Refuses what another web site has a browser send. Following a link from there is the user's own doing.
fn check_site(headers: &HeaderMap) -> Result<(), Refusal> {
    let is = |name: &str, values: &[&str]| {
        headers.get(name).is_none_or(|value| values.iter().any(|known| value == known))
    };
    let is_own = is("sec-fetch-site", &["none", "same-origin"]);
    if is_own || is("sec-fetch-dest", &["document"]) { Ok(()) } else { Err(Refusal::OtherSite) }
}

/// How a request wants to have it sampled.
pub(crate) fn wanted(head: &Parts, options: &Options) -> Result<Wanted, Refusal> {
    let (mut duration, mut rate, mut labels) = (None, None, Vec::new());
    for (name, value) in form_urlencoded::parse(head.uri.query().unwrap_or("").as_bytes()) {
        let malformed = |expected| Refusal::Parameter { name: short(&name), value: short(&value), expected };
        let is_again = match &*name {
            "seconds" => duration.replace(seconds(&value, options)?).is_some(),
            "hz" => {
                let number =
                    value.parse::<u32>().map_err(|_| malformed("a whole number of samples per second"))?;
                rate.replace(number).is_some()
            }
            "label" => {
                let (key, value) = value.split_once('=').ok_or_else(|| malformed("KEY=VALUE"))?;
                let is_again = labels.iter().any(|(known, _)| known == key);
                labels.push((key.to_owned(), value.to_owned()));
                is_again
            }
            _ => return Err(Refusal::UnknownParameter { name: short(&name) }),
        };
        if is_again {
            return Err(Refusal::Twice { name: short(&name) });
        }
    }
    let labels = (!labels.is_empty()).then(|| labels.into_iter().collect());
    Ok(Wanted { duration: duration.unwrap_or(options.duration.min(options.max_duration)), rate, labels })
}

fn seconds(text: &str, options: &Options) -> Result<Duration, Refusal> {
    let number = text.parse::<f64>().ok();
    let duration = number.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    // What no duration can be so long for is too long as well.
    let is_too_long = number.is_some_and(|seconds| seconds > options.max_duration.as_secs_f64());
    match duration {
        Some(duration) if !duration.is_zero() && !is_too_long => Ok(duration),
        _ if is_too_long => Err(Refusal::TooLong { asked: short(text), most: options.max_duration }),
        _ => Err(Refusal::Parameter {
            name: "seconds".to_owned(),
            value: short(text),
            expected: "a number of seconds above 0",
        }),
    }
}

/// What a sentence can quote: the start, without control characters.
fn short(text: &str) -> String {
    let shown: String = text.chars().take(40).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(40).is_some() { shown + "…" } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(uri: &str) -> Parts {
        http::Request::get(uri).body(()).unwrap().into_parts().0
    }

    fn asked(query: &str) -> Result<Wanted, String> {
        wanted(&head(&format!("/debug/pprof/profile?{query}")), &Options::default())
            .map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn parameters_say_how_to_sample() {
        let defaults = Wanted { duration: Duration::from_secs(30), rate: None, labels: None };
        assert_eq!(asked("").unwrap(), defaults);
        let wanted = asked("seconds=2.5&hz=499&label=tenant=a&label=kind%20of=x%3Dy+z").unwrap();
        assert_eq!((wanted.duration, wanted.rate), (Duration::from_millis(2_500), Some(499)));
        let labels: Labels = [("tenant", "a"), ("kind of", "x=y z")].into_iter().collect();
        assert_eq!(wanted.labels, Some(labels));
        // A default that is longer than what is allowed is not.
        let options = Options { max_duration: Duration::from_secs(1), ..Options::default() };
        assert_eq!(super::wanted(&head("/"), &options).unwrap().duration, Duration::from_secs(1));
    }

    #[test]
    fn what_cannot_be_is_refused_by_what_is_wrong() {
        for (query, sentence) in [
            ("seconds=", "`seconds=` is not a number of seconds above 0"),
            ("seconds=0", "`seconds=0` is not a number of seconds above 0"),
            ("seconds=-1", "`seconds=-1` is not a number of seconds above 0"),
            ("seconds=NaN", "`seconds=NaN` is not a number of seconds above 0"),
            ("seconds=1e-99", "`seconds=1e-99` is not a number of seconds above 0"),
            ("seconds=300.1", "300.1 seconds are too long; ask for 300 or less"),
            ("seconds=1e300", "1e300 seconds are too long; ask for 300 or less"),
            ("seconds=inf", "inf seconds are too long; ask for 300 or less"),
            ("hz=-1", "`hz=-1` is not a whole number of samples per second"),
            ("hz=99999999999", "`hz=99999999999` is not a whole number of samples per second"),
            ("label=tenant", "`label=tenant` is not KEY=VALUE"),
            ("seconds=1&seconds=2", "`seconds` is given twice"),
            ("label=a=1&label=a=2", "`label` is given twice"),
            ("second=1", "there is no parameter `second`; use seconds, hz or label"),
        ] {
            assert!(
                asked(query).is_err_and(|told| told.starts_with(sentence)),
                "{query}: {:?}",
                asked(query)
            );
        }
        let long = asked(&format!("hz={}%0a", "9".repeat(60_000))).unwrap_err();
        assert!(long.len() < 200 && !long.contains('\n'), "{long}");
    }

    #[test]
    fn paths_are_below_the_prefix() {
        let mut options = Options::default();
        let of = |path: &str, options: &Options| page(&head(path), options).ok();
        assert_eq!(of("/debug/pprof/", &options), Some(Page::Index));
        assert_eq!(of("/debug/pprof/stats?x", &options), Some(Page::Stats));
        for kind in Kind::ALL {
            assert_eq!(of(&format!("/debug/pprof/{}", kind.name()), &options), Some(Page::Profile(kind)));
        }
        for path in ["/", "/debug/pprof", "/debug/pprofprofile", "/debug/pprof/profile/", "/debug/pprof/heap"]
        {
            assert_eq!(of(path, &options), None, "{path}");
        }
        options.prefix = "/".to_owned();
        assert_eq!(of("/profile", &options), Some(Page::Profile(Kind::Pprof)));
        options.prefix = "/internal/guests".to_owned();
        assert_eq!(of("/internal/guests/folded", &options), Some(Page::Profile(Kind::Folded)));
    }

    #[test]
    fn other_sites_cannot_have_a_browser_ask() {
        let asks = |site: &str, dest: &str| {
            let request = http::Request::get("/debug/pprof/profile")
                .header("sec-fetch-site", site)
                .header("sec-fetch-dest", dest);
            page(&request.body(()).unwrap().into_parts().0, &Options::default()).is_ok()
        };
        assert!(asks("none", "document") && asks("same-origin", "empty") && asks("cross-site", "document"));
        assert!(!asks("cross-site", "empty") && !asks("same-site", "image") && !asks("cross-site", "iframe"));
    }
}
