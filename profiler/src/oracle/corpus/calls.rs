//! Guests that call themselves.

use std::fmt::Write;

use wasmtime::{Func, Instance, Store, TypedFunc, WasmParams, WasmResults};

use super::super::bench::Bench;

fn export<P: WasmParams, R: WasmResults>(
    bench: &mut Bench,
    store: &mut Store<()>,
    text: &str,
    name: &str,
) -> TypedFunc<P, R> {
    let module = bench.module(name, text);
    let identity = Func::wrap(&mut *store, |value: i64| value);
    let imports = if module.imports().len() == 0 { vec![] } else { vec![identity.into()] };
    let instance = Instance::new(&mut *store, &module, &imports).unwrap();
    instance.get_typed_func(store, name).unwrap()
}

pub(super) fn fibonacci(bench: &mut Bench) {
    let mut store = bench.store(());
    let run = export::<i32, i32>(bench, &mut store, include_str!("guests/fibonacci.wat"), "fibonacci");
    assert_eq!(bench.step(|| run.call(&mut store, 12)).unwrap(), 144);
}

pub(super) fn calls(bench: &mut Bench) {
    let mut store = bench.store(());
    let run = export::<i32, i64>(bench, &mut store, include_str!("guests/calls.wat"), "calls");
    assert_eq!(bench.step(|| run.call(&mut store, 30)).unwrap(), 4242);
}

pub(super) fn vectors(bench: &mut Bench) {
    let mut store = bench.store(());
    let run = export::<i32, i32>(bench, &mut store, include_str!("guests/calls.wat"), "vectors");
    assert_eq!(bench.step(|| run.call(&mut store, 20)).unwrap(), -2011296508);
}

pub(super) fn deep(bench: &mut Bench) {
    let mut store = bench.store(());
    let run = export::<i32, i32>(bench, &mut store, include_str!("guests/calls.wat"), "even");
    assert_eq!(bench.step(|| run.call(&mut store, 1200)).unwrap(), 1);
    assert!(bench.counts.cut > 0, "the stack did not get deep enough");
}

/// A function that needs its frame for `values` vectors of 16 bytes, which live across a call.
fn large_frame(values: usize) -> String {
    let mut text = "(module (memory 1) (func $callee (param i32) (result i32) (local.get 0))\n".to_owned();
    text.push_str("(func $large (param i32) (result i32) (local $sum v128)\n");
    (0..values).for_each(|index| writeln!(text, "(local $v{index} v128)").unwrap());
    (0..values).for_each(|index| {
        writeln!(text, "(local.set $v{index} (v128.load offset={index} (local.get 0)))").unwrap();
    });
    text.push_str("(local.set 0 (call $callee (local.get 0)))\n");
    (0..values).for_each(|index| {
        writeln!(text, "(local.set $sum (v128.or (local.get $sum) (local.get $v{index})))").unwrap();
    });
    text.push_str("(i32x4.extract_lane 0 (local.get $sum)))\n");
    text.push_str(
        "(func (export \"large\") (result i32) (i32.add (call $large (i32.const 7)) (i32.const 1))))",
    );
    text
}

pub(super) fn large_frames(bench: &mut Bench) {
    // Frames of some words, of more than a page, of several pages (probed in a loop) and of more than 32 KiB, which
    // differ in their prologues.
    for values in [20, 300, 900, 2100] {
        let mut store = bench.store(());
        let run = export::<(), i32>(bench, &mut store, &large_frame(values), "large");
        assert_eq!(bench.step(|| run.call(&mut store, ())).unwrap(), 1);
    }
}

pub(super) fn tail_calls(bench: &mut Bench) {
    let mut store = bench.store(());
    let text = include_str!("guests/tail_calls.wat");
    let run = export::<i32, i64>(bench, &mut store, text, "run");
    assert_eq!(bench.step(|| run.call(&mut store, 24)).unwrap(), 1210);
    assert!(bench.counts.tail_calls > 100, "{:?}", bench.counts);
    let mut store = bench.store(());
    let straight_out = export::<i64, i64>(bench, &mut store, text, "straight_out");
    assert_eq!(bench.step(|| straight_out.call(&mut store, 11)).unwrap(), 11);
}

pub(super) fn references(bench: &mut Bench) {
    let mut store = bench.store(());
    let run = export::<i32, i64>(bench, &mut store, include_str!("guests/references.wat"), "run");
    assert_eq!(bench.step(|| run.call(&mut store, 10)).unwrap(), 660);
    assert!(bench.counts.tail_calls > 10, "{:?}", bench.counts);
}
