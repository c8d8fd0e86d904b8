//! Profiles to send, and how their stacks are compared.

use std::time::{Duration, SystemTime};

use flamewalk_profile::{Event, Frame, Origin, Profile, SourceLocation, Tally, Thread, folded};
use flamewalk_push::Window;

/// Two tenants on two threads, with an inlined function, a host call and lines.
pub(crate) fn example() -> Profile {
    let mut profile = Profile::default();
    profile.metadata.event = Event::time("cpu");
    profile.metadata.period = Some(1_003_009);
    profile.metadata.asked_rate = Some(997.0);
    profile.metadata.start = Some(SystemTime::UNIX_EPOCH + Duration::new(1_795_000_005, 7));
    profile.metadata.duration = Some(Duration::from_secs(10));
    let at = |file: &str, line| Some(SourceLocation { file: file.into(), line, column: 3 });
    let guest = |name: &str| Frame { module: Some("plugin".into()), ..Frame::guest(name) };
    let main =
        profile.intern(Frame { location: at("main.rs", 7), bytecode_offset: Some(99), ..guest("main") });
    let small = profile.intern(Frame { location: at("small.rs", 1), inlined: true, ..guest("small") });
    let write = profile.intern(Frame::host_call("wasi_snapshot_preview1", "fd_write"));
    for (number, tenant, stack, weight) in [
        (1, "a", vec![main, small], 1_000_000),
        (2, "a", vec![main, small], 2_000_000),
        (2, "b", vec![main], 4_000_000),
        (2, "b", vec![main, write], 8_000_000),
    ] {
        let thread = Some(profile.intern_thread(Thread { id: number, name: Some("worker".into()) }));
        let labels = profile.intern_labels([("tenant", tenant)].into_iter().collect());
        let origin = Origin { thread, labels, slice: Some(0) };
        profile.add_from(&stack, origin, Tally { samples: 1, weight }).unwrap();
    }
    profile
}

pub(crate) fn window() -> Window {
    let begin = SystemTime::UNIX_EPOCH + Duration::new(1_795_000_005, 0);
    Window::new(example(), begin, begin + Duration::from_millis(9_999))
}

/// Stacks by their shown names.
pub(crate) fn stacks(profile: &Profile) -> String {
    let mut lines = Vec::new();
    folded::write(profile, folded::Value::default(), &mut lines).unwrap();
    String::from_utf8(lines).unwrap()
}
