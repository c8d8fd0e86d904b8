//! Guests and hosts that call each other.

use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, OnceLock};

use wasmtime::{
    AsContextMut, Caller, Func, FuncType, Instance, Linker, Store, StoreContextMut, TypedFunc, Val, ValType,
};

use super::super::bench::Bench;

const GUEST: &str = include_str!("guests/host_calls.wat");

/// Takes and gives more than fits in registers.
pub(super) fn wide<T: 'static>(store: &mut Store<T>) -> Func {
    let parameters = std::iter::repeat_n(ValType::I64, 10).chain([ValType::F64, ValType::F32]);
    let results = [ValType::I64, ValType::F64, ValType::I32, ValType::I64];
    let ty = FuncType::new(store.engine(), parameters, results);
    Func::new(store, ty, |_, parameters, results| {
        assert_eq!(parameters[9].i64(), Some(10));
        results.copy_from_slice(&[Val::I64(1), Val::F64(2f64.to_bits()), Val::I32(3), Val::I64(4)]);
        Ok(())
    })
}

pub(super) fn instantiate<T: 'static>(
    bench: &mut Bench,
    store: &mut Store<T>,
    name: &str,
    again: Func,
) -> Instance {
    let module = bench.module(name, GUEST);
    let add = Func::wrap(&mut *store, |left: i32, right: i32| left + right);
    let wide = wide(store);
    Instance::new(store, &module, &[add.into(), wide.into(), again.into()]).unwrap()
}

pub(super) fn host_calls(bench: &mut Bench) {
    let mut store = bench.store(());
    let again = Func::wrap(&mut store, |n: i32| n);
    let instance = instantiate(bench, &mut store, "host calls", again);
    let run = instance.get_typed_func::<i32, i32>(&mut store, "run").unwrap();
    assert_eq!(bench.step(|| run.call(&mut store, 10)).unwrap(), 55 + 10 + 30);
    // The guest exports what it imports: there is no guest function on the way.
    let add = instance.get_typed_func::<(i32, i32), i32>(&mut store, "add").unwrap();
    assert_eq!(bench.step(|| add.call(&mut store, (1, 2))).unwrap(), 3);
}

pub(super) fn call_back(bench: &mut Bench) {
    let mut store = bench.store(());
    let again = Func::wrap(&mut store, |mut caller: Caller<'_, ()>, n: i32| {
        let recurse = caller.get_export("recurse").and_then(|export| export.into_func()).unwrap();
        let recurse = recurse.typed::<i32, i32>(&caller).unwrap();
        // Once with the guest below in a host call, and again after a return.
        let first = recurse.call(&mut caller, n - 1).unwrap();
        first + recurse.call(&mut caller, 0).unwrap()
    });
    let instance = instantiate(bench, &mut store, "host calls", again);
    let recurse = instance.get_typed_func::<i32, i32>(&mut store, "recurse").unwrap();
    assert_eq!(bench.step(|| recurse.call(&mut store, 4)).unwrap(), 3 + 4 * 4);
    assert!(bench.counts.entries >= 9, "{:?}", bench.counts);
}

/// Two stores that call each other.
struct Pair {
    /// By which each store can be entered now: the store itself or, while it is in a host call, that call's [`Caller`].
    contexts: [AtomicPtr<StoreContextMut<'static, ()>>; 2],
    recurse: [OnceLock<TypedFunc<i32, i32>>; 2],
}

impl Pair {
    fn enter(&self, side: usize, n: i32) -> i32 {
        // SAFETY: set by `with` on this thread, which has not returned. What is borrowed there is not used before this
        // returns.
        let context = unsafe { &mut *self.contexts[side].load(Ordering::Relaxed) };
        self.recurse[side].get().unwrap().call(context, n).unwrap()
    }

    /// Lets `store` be entered while `act` runs.
    fn with<R>(&self, side: usize, mut store: impl AsContextMut<Data = ()>, act: impl FnOnce() -> R) -> R {
        let mut context = store.as_context_mut();
        let before = self.contexts[side].swap((&raw mut context).cast(), Ordering::Relaxed);
        let result = act();
        self.contexts[side].store(before, Ordering::Relaxed);
        result
    }
}

pub(super) fn two_stores(bench: &mut Bench) {
    let pair = Arc::new(Pair { contexts: Default::default(), recurse: Default::default() });
    let mut stores = [bench.store(()), bench.store(())];
    for (side, store) in stores.iter_mut().enumerate() {
        let of_host = Arc::clone(&pair);
        let again = Func::wrap(&mut *store, move |mut caller: Caller<'_, ()>, n: i32| {
            of_host.with(side, &mut caller, || of_host.enter(1 - side, n - 1))
        });
        let instance = instantiate(bench, store, ["first", "second"][side], again);
        let recurse = instance.get_typed_func::<i32, i32>(store, "recurse").unwrap();
        pair.recurse[side].set(recurse).ok().unwrap();
    }
    let [first, second] = &mut stores;
    let run = || pair.with(0, first, || pair.with(1, second, || pair.enter(0, 5)));
    assert_eq!(bench.step(run), 3 + 5);
    assert_eq!(bench.counts.entries, 6);
}

pub(super) fn start(bench: &mut Bench) {
    let module = bench.module("start", include_str!("guests/start.wat"));
    let mut store = bench.store(());
    let mut linker = Linker::new(&bench.engine);
    linker.func_wrap("host", "add", |left: i32, right: i32| left + right).unwrap();
    let instance = bench.step(|| linker.instantiate(&mut store, &module)).unwrap();
    let result = instance.get_typed_func::<(), i32>(&mut store, "result").unwrap();
    assert_eq!(result.call(&mut store, ()).unwrap(), 10 + 2);
}
