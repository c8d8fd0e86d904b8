//! What can be sampled, and that what cannot be sampled is said.

use flamewalk_guests::Guest;

use crate::finish;
use crate::support::{Folded, Folder, flamewalk_run};

/// Standard error and the profile's weight; `None` if the event does not occur or was refused as it should be.
fn sample(event: &str) -> Option<(String, u64)> {
    let folder = Folder::new();
    let output = folder.path("a.folded");
    let mut command = flamewalk_run();
    command.args(["--event", event, "-o"]).arg(&output).arg(Guest::HostCalls.path()).arg("100000");
    let outcome = finish(&mut command);
    match outcome.status {
        Some(0) => Some((outcome.stderr, Folded::read(&output).total())),
        // It can be had, and does not occur.
        Some(125) if outcome.stderr.contains(&format!("the event `{event}` did not occur")) => None,
        status => {
            assert_eq!(status, Some(125), "{outcome:?}");
            assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
            let said = outcome.stderr.contains(&format!("this machine has no event `{event}`"))
                || outcome.stderr.contains(&format!("the kernel refuses the event `{event}`"));
            assert!(said, "{outcome:?}");
            // The guest did not run.
            assert_eq!(outcome.stdout, "");
            assert!(!output.exists());
            None
        }
    }
}

/// Many machines have no counters: none of these may fail in any other way than by saying so.
#[test]
fn counters_of_the_processor_count_or_are_refused() {
    for event in ["cycles", "instructions", "cache-misses", "branch-misses", "L1-dcache-load-misses"] {
        if let Some((stderr, total)) = sample(event) {
            assert!(total > 0, "{event}: {stderr}");
        }
    }
}

/// Software events need no processor that has them.
#[test]
fn every_event_of_the_kernel_can_be_asked_for() {
    for event in flamewalk::Event::names() {
        if let Some((stderr, total)) = sample(event) {
            assert!(total > 0, "{event}: {stderr}");
        }
    }
    for event in ["cpu", "wall", "cpu-timer"] {
        let (stderr, total) = sample(event).unwrap();
        assert!(total > 0, "{event}: {stderr}");
    }
}

/// The CPU-time timer follows the kernel's tick, and the user is told what rate that gives, once.
#[test]
fn a_rate_that_cannot_be_reached_is_said() {
    let notices = |rate: &str| {
        let mut command = flamewalk_run();
        let outcome = finish(
            command
                .args(["--event", "cpu-timer", "--freq", rate])
                .arg(Guest::KnownAnswer.path())
                .args(["--rounds", "50"]),
        );
        assert_eq!(outcome.status, Some(0), "{outcome:?}");
        outcome
            .stderr
            .lines()
            .filter(|line| line.contains("follows the kernel's tick"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let said = notices("4999");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("samples per second of the 4999 that were asked for"), "{said:?}");
    // No kernel ticks more rarely than this.
    assert_eq!(notices("97"), Vec::<String>::new());
}
