//! Components.

use wasmtime::component::Linker;

use super::super::bench::Bench;

pub(super) fn strings(bench: &mut Bench) {
    let component = bench.component("strings", include_str!("guests/components.wat"));
    let mut store = bench.store(());
    let mut linker = Linker::new(&bench.engine);
    linker.root().func_wrap("log", |_, (text,): (String,)| Ok((text + "!",))).unwrap();
    let instance = linker.instantiate(&mut store, &component).unwrap();
    let run = instance.get_typed_func::<(u32,), (u32,)>(&mut store, "run").unwrap();
    let run = || run.call(&mut store, (3,));
    assert_eq!(bench.step(run).unwrap().0, 3 * (31 + 9 + 10));
}

pub(super) fn resources(bench: &mut Bench) {
    let component = bench.component("resources", include_str!("guests/resources.wat"));
    let mut store = bench.store(());
    let linker = Linker::new(&bench.engine);
    let instance = linker.instantiate(&mut store, &component).unwrap();
    let run = instance.get_typed_func::<(u32,), (u32,)>(&mut store, "run").unwrap();
    let run = || run.call(&mut store, (4,));
    assert_eq!(bench.step(run).unwrap().0, 1 + 2 + 3 + 4 + 2 + 3 + 4 + 5);
}
