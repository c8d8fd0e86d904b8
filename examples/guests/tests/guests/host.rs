//! Runs guests under Wasmtime and tells what they did.

use std::path::Path;

use wasmtime::component::{Component, ResourceTable};
use wasmtime::{Engine, Linker, Module, Store, Trap};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::bindings::sync::Command;
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

/// More than any guest writes; writing more than that is an error to the guest.
const OUTPUT_BYTES: usize = 1 << 20;

/// What a guest did.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) end: End,
}

/// How a run ended.
#[derive(Debug, PartialEq)]
pub(crate) enum End {
    Returned,
    Exited(i32),
    Trapped(Trap),
}

/// Runs a WASI preview 1 command with `arguments` after its name, `directory` as its `/guests`.
pub(crate) fn run_command(binary: &[u8], arguments: &[&str], directory: Option<&Path>) -> Run {
    let (mut context, stdout, stderr) = context(arguments, directory);
    let engine = Engine::default();
    let mut linker = Linker::new(&engine);
    wasmtime_wasi::p1::add_to_linker_sync(&mut linker, |context: &mut WasiP1Ctx| context).unwrap();
    let mut store = Store::new(&engine, context.build_p1());
    let instance = linker.instantiate(&mut store, &Module::new(&engine, binary).unwrap()).unwrap();
    let start = instance.get_typed_func::<(), ()>(&mut store, "_start").unwrap();
    let end = end_of(start.call(&mut store, ()));
    Run { stdout: text(&stdout), stderr: text(&stderr), end }
}

/// Runs a WASI preview 2 command.
pub(crate) fn run_component(binary: &[u8], arguments: &[&str]) -> Run {
    struct State {
        context: WasiCtx,
        table: ResourceTable,
    }
    impl WasiView for State {
        fn ctx(&mut self) -> WasiCtxView<'_> {
            WasiCtxView { ctx: &mut self.context, table: &mut self.table }
        }
    }
    let (mut context, stdout, stderr) = context(arguments, None);
    let engine = Engine::default();
    let mut linker = wasmtime::component::Linker::new(&engine);
    wasmtime_wasi::p2::add_to_linker_sync::<State>(&mut linker).unwrap();
    let mut store = Store::new(&engine, State { context: context.build(), table: ResourceTable::new() });
    let component = Component::new(&engine, binary).unwrap();
    let command = Command::instantiate(&mut store, &component, &linker).unwrap();
    let end = match command.wasi_cli_run().call_run(&mut store) {
        Ok(Ok(())) => End::Returned,
        Ok(Err(())) => End::Exited(1),
        Err(error) => end_of(Err(error)),
    };
    Run { stdout: text(&stdout), stderr: text(&stderr), end }
}

fn context(
    arguments: &[&str],
    directory: Option<&Path>,
) -> (WasiCtxBuilder, MemoryOutputPipe, MemoryOutputPipe) {
    let (stdout, stderr) = (MemoryOutputPipe::new(OUTPUT_BYTES), MemoryOutputPipe::new(OUTPUT_BYTES));
    let mut context = WasiCtxBuilder::new();
    context.arg("guest").args(arguments).stdout(stdout.clone()).stderr(stderr.clone());
    if let Some(directory) = directory {
        context.preopened_dir(directory, "/guests", FsPerms::ReadOnly).unwrap();
    }
    (context, stdout, stderr)
}

fn end_of(result: wasmtime::Result<()>) -> End {
    let Err(error) = result else { return End::Returned };
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return End::Exited(exit.0);
    }
    End::Trapped(
        *error.downcast_ref::<Trap>().unwrap_or_else(|| panic!("neither an exit nor a trap: {error:?}")),
    )
}

fn text(pipe: &MemoryOutputPipe) -> String {
    String::from_utf8(pipe.contents().to_vec()).unwrap()
}
