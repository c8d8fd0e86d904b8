//! Plug-ins that are loaded, run and dropped while the host is profiled: `cargo run --bin plugins [OUT.svg]`.
//!
//! The profiler finds their code by itself and lets go of it with the last use of the plug-in: a host that loads
//! plug-ins all day has nothing to remember, and no memory to lose. Functions of plug-ins that are gone keep their names
//! in the profile.

use std::error::Error;
use std::fs::File;
use std::sync::Arc;

use flamewalk::profile::Metadata;
use flamewalk::{Options, ProfiledCodeMemory, Profiler};
use flamewalk_flamegraphs::{hottest, svg};
use wasmtime::{Config, Engine, Instance, Module, Store};

/// Names of plug-ins, and how much work one call of each is.
const PLUGINS: [(&str, u32); 3] = [("blur", 6_000_000), ("sharpen", 3_000_000), ("rotate", 1_000_000)];

fn main() -> Result<(), Box<dyn Error>> {
    let output = std::env::args().nth(1).unwrap_or_else(|| "plugins.svg".to_owned());

    // The only line that concerns loading: everything that this engine compiles or deserializes is known.
    let mut config = Config::new();
    config.with_custom_code_memory(Some(Arc::new(ProfiledCodeMemory::new())));
    let engine = Engine::new(&config)?;

    let profiler = Profiler::new(Options::default())?;
    profiler.start()?;
    let rounds = 30;
    for round in 0..rounds {
        // A new version of each plug-in in every round, at addresses that others have had before.
        for (name, steps) in PLUGINS {
            let module = Module::new(&engine, plugin(name, round))?;
            let mut store = Store::new(&engine, ());
            profiler.attach(&mut store)?;
            let instance = Instance::new(&mut store, &module, &[])?;
            instance.get_typed_func::<u32, u32>(&mut store, "apply")?.call(&mut store, steps)?;
            // Here the plug-in is dropped, and its code is unmapped.
        }
    }
    let profile = profiler.stop(Metadata::default())?;

    println!("loaded and dropped {} plug-ins", rounds * PLUGINS.len());
    print!("{}", hottest(&profile, 10));
    svg(&profile, &Default::default(), File::create(&output)?)?;
    println!("wrote {output}");
    Ok(())
}

/// A module of one function that takes `steps`, which it is called with.
fn plugin(name: &str, version: usize) -> String {
    format!(
        "(module ${name}
           (func ${name}_pixels (export \"apply\") (param $steps i32) (result i32) (local $pixel i32)
             (local.set $pixel (i32.const {version}))
             (loop $next
               (local.set $pixel (i32.rotl (i32.mul (local.get $pixel) (i32.const 1664525)) (i32.const 5)))
               (br_if $next (local.tee $steps (i32.sub (local.get $steps) (i32.const 1)))))
             (local.get $pixel)))"
    )
}
