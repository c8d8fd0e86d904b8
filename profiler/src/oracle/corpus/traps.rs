//! Traps, of every kind that a guest can cause, and failures of the host that end a guest.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use wasmtime::{Func, Instance, Trap};

use super::super::bench::Bench;

/// What `trap` of the guest does, by its argument; `None` for what the host does.
const TRAPS: [Option<Trap>; 15] = [
    Some(Trap::UnreachableCodeReached),
    Some(Trap::IntegerDivisionByZero),
    Some(Trap::IntegerOverflow),
    Some(Trap::BadConversionToInteger),
    Some(Trap::IntegerOverflow),
    Some(Trap::MemoryOutOfBounds),
    Some(Trap::MemoryOutOfBounds),
    Some(Trap::MemoryOutOfBounds),
    Some(Trap::TableOutOfBounds),
    Some(Trap::IndirectCallToNull),
    Some(Trap::TableOutOfBounds),
    Some(Trap::BadSignature),
    None,
    None,
    Some(Trap::StackOverflow),
];

pub(super) fn traps(bench: &mut Bench) {
    let module = bench.module("traps", include_str!("guests/traps.wat"));
    let mut store = bench.store(());
    let fail =
        Func::wrap(&mut store, || -> wasmtime::Result<()> { Err(wasmtime::Error::msg("from the host")) });
    // Not with `panic!`, which would print.
    let panic = Func::wrap(&mut store, || -> () { resume_unwind(Box::new("from the host")) });
    let instance = Instance::new(&mut store, &module, &[fail.into(), panic.into()]).unwrap();
    let trap = instance.get_typed_func::<i32, i32>(&mut store, "trap").unwrap();
    for (which, expected) in (0..).zip(TRAPS) {
        let outcome = bench.step(|| catch_unwind(AssertUnwindSafe(|| trap.call(&mut store, which))));
        match (outcome, expected) {
            (Ok(Err(error)), Some(expected)) => {
                assert_eq!(error.downcast_ref::<Trap>(), Some(&expected), "{which}: {error:?}");
            }
            (Ok(Err(error)), None) => assert_eq!(error.root_cause().to_string(), "from the host"),
            (Err(panic), None) => assert_eq!(panic.downcast_ref(), Some(&"from the host")),
            (outcome, _) => panic!("{which} has ended with {outcome:?}"),
        }
    }
    // Each but the two failures of the host.
    assert!(bench.counts.caught >= 13, "{:?}", bench.counts);
}
