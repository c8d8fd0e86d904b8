//! Traps, of every kind that a guest can cause, and failures of the host that end a guest.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use wasmtime::{Caller, Func, Instance, Store, Trap, TypedFunc};

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

fn instantiate<T: 'static>(bench: &mut Bench, store: &mut Store<T>) -> TypedFunc<i32, i32> {
    let module = bench.module("traps", include_str!("guests/traps.wat"));
    let fail =
        Func::wrap(&mut *store, || -> wasmtime::Result<()> { Err(wasmtime::Error::msg("from the host")) });
    // Not with `panic!`, which would print.
    let panic = Func::wrap(&mut *store, || -> () { resume_unwind(Box::new("from the host")) });
    let instance = Instance::new(&mut *store, &module, &[fail.into(), panic.into()]).unwrap();
    instance.get_typed_func::<i32, i32>(store, "trap").unwrap()
}

pub(super) fn traps(bench: &mut Bench) {
    let mut store = bench.store(());
    let trap = instantiate(bench, &mut store);
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

/// Guests that end so in a host call of another guest of the same store, which goes on: what the store knows of where
/// its guest was left is that of the one that has ended, until the error has been made.
pub(super) fn traps_below_a_guest(bench: &mut Bench) {
    let mut store = bench.store(None::<TypedFunc<i32, i32>>);
    let again = Func::wrap(&mut store, |mut caller: Caller<'_, Option<TypedFunc<i32, i32>>>, which: i32| {
        let trap = caller.data().clone().unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(|| trap.call(&mut caller, which)));
        i32::from(!matches!(outcome, Ok(Ok(_))))
    });
    let instance = super::hosts::instantiate(bench, &mut store, "caller", again);
    let recurse = instance.get_typed_func::<i32, i32>(&mut store, "recurse").unwrap();
    let trap = instantiate(bench, &mut store);
    *store.data_mut() = Some(trap);
    for which in 1..TRAPS.len() as i32 {
        assert!(bench.step(|| recurse.call(&mut store, which)).unwrap() > 0, "{which}");
    }
    assert!(bench.counts.caught >= 12, "{:?}", bench.counts);
}
