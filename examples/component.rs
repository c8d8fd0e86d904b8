//! Profiles a component with two core modules that calls an interface of the host: `cargo run --bin component [OUT.svg]`.
//!
//! All of a component's modules are known by the component's name, and the host's functions by their interfaces.

use std::error::Error;
use std::fs::File;

use flamewalk::profile::Metadata;
use flamewalk::{Guest, Options, Profiler};
use flamewalk_flamegraphs::{hottest, svg};
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store};

/// A shop: one module counts, the other sells, and the host is asked for prices.
const SHOP: &str = r#"(component
  (import "demo:shop/prices" (instance $prices
    (export "lookup" (func (param "item" u32) (result u32)))))
  (core func $lookup (canon lower (func $prices "lookup")))
  (core module $Counting
    (func $count (export "count") (param $turns i32)
      (loop (br_if 0 (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))))
  (core instance $counting (instantiate $Counting))
  (core module $Selling
    (import "counting" "count" (func $count (param i32)))
    (import "prices" "lookup" (func $lookup (param i32) (result i32)))
    (func $sell (param $item i32) (result i32)
      (call $count (i32.const 200000))
      (call $lookup (local.get $item)))
    (func (export "run") (param $items i32) (result i32) (local $sum i32)
      (loop
        (local.set $sum (i32.add (local.get $sum) (call $sell (local.get $items))))
        (br_if 0 (local.tee $items (i32.sub (local.get $items) (i32.const 1)))))
      (local.get $sum)))
  (core instance $selling (instantiate $Selling
    (with "counting" (instance $counting))
    (with "prices" (instance (export "lookup" (func $lookup))))))
  (func (export "run") (param "items" u32) (result u32) (canon lift (core func $selling "run"))))"#;

const ITEMS: u32 = 5_000;

fn main() -> Result<(), Box<dyn Error>> {
    let output = std::env::args().nth(1).unwrap_or_else(|| "component.svg".to_owned());
    let engine = Engine::default();
    let binary = wat::parse_str(SHOP)?;
    let component = Component::new(&engine, &binary)?;
    let mut linker = Linker::<()>::new(&engine);
    linker.instance("demo:shop/prices")?.func_wrap("lookup", |_, (item,): (u32,)| {
        // A price that takes a while to be found.
        Ok(((0..20_000_u32).fold(item, |sum, step| std::hint::black_box(sum ^ step)) % 100,))
    })?;
    let mut store = Store::new(&engine, ());

    let profiler = Profiler::new(Options::default())?;
    profiler.register_component(&component, Guest::named("shop").binary(binary))?;
    profiler.attach(&mut store)?;
    profiler.start()?;
    let instance = linker.instantiate(&mut store, &component)?;
    let run = instance.get_typed_func::<(u32,), (u32,)>(&mut store, "run")?;
    run.call(&mut store, (ITEMS,))?;
    let profile = profiler.stop(Metadata::default())?;

    print!("{}", hottest(&profile, 10));
    svg(&profile, &Default::default(), File::create(&output)?)?;
    println!("wrote {output}");
    Ok(())
}
