//! Exceptions.

use wasmtime::{Caller, Func, Instance, ThrownException};

use super::super::bench::Bench;

pub(super) fn exceptions(bench: &mut Bench) {
    let module = bench.module("exceptions", include_str!("guests/exceptions.wat"));
    let mut store = bench.store(());
    let host_call = Func::wrap(&mut store, |mut caller: Caller<'_, ()>, number: i32| {
        let throw = caller.get_export("throw").and_then(|export| export.into_func()).unwrap();
        let result = throw.call(&mut caller, &[number.into()], &mut []);
        assert!(result.as_ref().unwrap_err().is::<ThrownException>());
        result
    });
    let instance = Instance::new(&mut store, &module, &[host_call.into()]).unwrap();
    let run = instance.get_typed_func::<i32, i64>(&mut store, "run").unwrap();
    assert_eq!(bench.step(|| run.call(&mut store, 3)).unwrap(), 1 + 2 + 3 + 3 * 7);
    assert!(bench.counts.caught >= 9, "{:?}", bench.counts);
    let through_host = instance.get_typed_func::<(), i64>(&mut store, "through_host").unwrap();
    assert_eq!(bench.step(|| through_host.call(&mut store, ())).unwrap(), 2);
    let uncaught = instance.get_typed_func::<(), i64>(&mut store, "uncaught").unwrap();
    let error = bench.step(|| uncaught.call(&mut store, ())).unwrap_err();
    assert!(error.is::<ThrownException>(), "{error:?}");
}
