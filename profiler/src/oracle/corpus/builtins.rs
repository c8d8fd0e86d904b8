//! Guests that need the runtime.

use wasmtime::Instance;

use super::super::bench::Bench;

pub(super) fn builtins(bench: &mut Bench) {
    let module = bench.module("builtins", include_str!("guests/builtins.wat"));
    let mut store = bench.store(());
    let instance = Instance::new(&mut store, &module, &[]).unwrap();
    let run = instance.get_typed_func::<i32, i32>(&mut store, "run").unwrap();
    assert_eq!(bench.step(|| run.call(&mut store, 3)).unwrap(), 9);
}

pub(super) fn atomics(bench: &mut Bench) {
    let module = bench.module("atomics", include_str!("guests/atomics.wat"));
    let mut store = bench.store(());
    let instance = Instance::new(&mut store, &module, &[]).unwrap();
    let run = instance.get_typed_func::<i32, i32>(&mut store, "run").unwrap();
    assert_eq!(bench.step(|| run.call(&mut store, 3)).unwrap(), 3 * (1 + 2 + 2));
}

pub(super) fn gc(bench: &mut Bench) {
    let module = bench.module("gc", include_str!("guests/gc.wat"));
    let mut store = bench.store(());
    let instance = Instance::new(&mut store, &module, &[]).unwrap();
    let run = instance.get_typed_func::<i32, i64>(&mut store, "run").unwrap();
    assert_eq!(bench.step(|| run.call(&mut store, 10)).unwrap(), 160);
}
