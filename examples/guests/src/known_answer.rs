//! The truth about the known-answer guest, as its source (`sources/known_answer.c`) fixes it by construction.

/// Each function of the known-answer guest and its share of the run time, largest first: time in the function itself,
/// not in what it calls. The rest of the time, [`HOST_CALL_SHARE`], goes to the host call.
///
/// The names are those of the guest's name section. All shares count in steps: a step of the chain takes the same time
/// in straight-line code and in a loop. They hold for code that keeps the chain in a register (Cranelift at
/// `OptLevel::Speed`), not for unoptimized code.
pub const KNOWN_ANSWER: &[(&str, f64)] = &[
    ("straight", 0.30),
    ("loopy", 0.20),
    ("recursive", 0.15),
    ("indirect_most", 0.10),
    ("indirect_some", 0.05),
    ("parent", 0.05),
    ("leaf", 0.05),
];

/// The host call's share of the run time: `wasi_snapshot_preview1.random_get` in [`KnownAnswer`](crate::Guest),
/// `env.burn` in the variant for embedders.
pub const HOST_CALL_SHARE: f64 = 0.10;

/// Each line of `lines` in [`Guest::Lines`](crate::Guest), and its share of the run time, with what is inlined there: time
/// in the whole of the guest's `sources/lines.c` is time on one of these lines.
pub const KNOWN_LINES: &[(u32, f64)] = &[(24, 0.1), (25, 0.2), (26, 0.3), (27, 0.1), (28, 0.3)];

/// Steps that the guest itself does in a round; the host does as many more as its share says.
pub const GUEST_STEPS_PER_ROUND: u64 = 900_000;

/// Steps in the straight-line code of `straight`, which has no loop and no call.
pub const STRAIGHT_STEPS: u64 = 4_000;

/// What the guest's chain starts with.
pub const SEED: u64 = 1;

/// `count` steps of the guest's chain from `value` on, natively: the work behind the import `env.burn(steps: i32)`, and
/// the value that the guest must arrive at after [`GUEST_STEPS_PER_ROUND`] steps a round.
///
/// The result depends on every step: use it ([`std::hint::black_box`]), or the compiler may leave the steps out.
pub fn chain(value: u64, count: u64) -> u64 {
    (0..count).fold(value, |value, _| value.wrapping_mul(109) ^ 91)
}
