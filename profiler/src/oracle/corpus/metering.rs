//! Guests that the engine stops.

use wasmtime::{Func, Instance, Trap};

use super::super::bench::Bench;

pub(super) fn fuel(bench: &mut Bench) {
    let module = bench.module("fibonacci", include_str!("guests/fibonacci.wat"));
    let mut store = bench.store(());
    let instance = Instance::new(&mut store, &module, &[]).unwrap();
    let run = instance.get_typed_func::<i32, i32>(&mut store, "fibonacci").unwrap();
    store.set_fuel(500).unwrap();
    let error = bench.step(|| run.call(&mut store, 20)).unwrap_err();
    assert_eq!(error.downcast_ref::<Trap>(), Some(&Trap::OutOfFuel), "{error:?}");
}

pub(super) fn epoch(bench: &mut Bench) {
    let module = bench.module("host calls", include_str!("guests/host_calls.wat"));
    let mut store = bench.store(());
    let engine = bench.engine.clone();
    let add = Func::wrap(&mut store, move |left: i32, right: i32| {
        engine.increment_epoch();
        left + right
    });
    let wide = super::hosts::wide(&mut store);
    let again = Func::wrap(&mut store, |n: i32| n);
    let instance = Instance::new(&mut store, &module, &[add.into(), wide.into(), again.into()]).unwrap();
    let run = instance.get_typed_func::<i32, i32>(&mut store, "run").unwrap();
    // Each tick is noticed, up to the one that ends the guest.
    let mut ticks = 0;
    store.epoch_deadline_callback(move |_| {
        ticks += 1;
        if ticks == 4 {
            Err(wasmtime::Error::msg("enough"))
        } else {
            Ok(wasmtime::UpdateDeadline::Continue(1))
        }
    });
    store.set_epoch_deadline(1);
    let error = bench.step(|| run.call(&mut store, 100)).unwrap_err();
    assert_eq!(error.root_cause().to_string(), "enough");
}
