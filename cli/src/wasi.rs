//! Running a guest: WASI commands of both previews, and named exports.

use flamewalk::Profiler;
use flamewalk::profile::EndReason;
use wasmtime::component::{self, Component, ResourceTable};
use wasmtime::{Func, Linker, Module, Store, Trap, UnknownImportError, Val, ValType};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::bindings::sync::CommandPre;
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::arguments::Run;
use crate::failure::Failure;
use crate::guest::{Code, Loaded};

/// The state of a preview 2 store.
struct Preview2 {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for Preview2 {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// Runs the guest to its end, and returns as well what an invoked function has returned, a value a line. Sampling starts
/// when the guest is ready to run.
pub(crate) fn run(
    guest: &Loaded,
    profiler: &Profiler,
    arguments: &Run,
) -> Result<(EndReason, String), Failure> {
    match &guest.code {
        Code::Module(module) => run_module(module, guest, profiler, arguments),
        Code::Component(_) if arguments.invoke.is_some() => Err(Failure::InvokeComponent),
        Code::Component(component) => {
            run_component(component, guest, profiler, arguments).map(|end| (end, String::new()))
        }
    }
}

fn run_component(
    component: &Component,
    guest: &Loaded,
    profiler: &Profiler,
    arguments: &Run,
) -> Result<EndReason, Failure> {
    let mut linker = component::Linker::new(&guest.engine);
    wasmtime_wasi::p2::add_to_linker_sync(&mut linker).map_err(instantiate)?;
    let ready = linker.instantiate_pre(component).and_then(CommandPre::new).map_err(instantiate)?;
    let state = Preview2 { wasi: context(guest, arguments)?.build(), table: ResourceTable::new() };
    let mut store = Store::new(&guest.engine, state);
    profiler.attach(&mut store)?;
    profiler.start()?;
    let result =
        ready.instantiate(&mut store).and_then(|command| command.wasi_cli_run().call_run(&mut store));
    Ok(match result {
        Ok(Ok(())) => EndReason::Finished,
        // A command that only says that it failed.
        Ok(Err(())) => EndReason::ExitStatus(1),
        Err(error) => end_of(&error),
    })
}

fn run_module(
    module: &Module,
    guest: &Loaded,
    profiler: &Profiler,
    arguments: &Run,
) -> Result<(EndReason, String), Failure> {
    let mut linker = Linker::new(&guest.engine);
    wasmtime_wasi::p1::add_to_linker_sync(&mut linker, |wasi: &mut WasiP1Ctx| wasi).map_err(instantiate)?;
    let ready = linker.instantiate_pre(module).map_err(instantiate)?;
    let call = Call::new(module, arguments)?;
    let mut store = Store::new(&guest.engine, context(guest, arguments)?.build_p1());
    profiler.attach(&mut store)?;
    profiler.start()?;
    let result = ready.instantiate(&mut store).and_then(|instance| {
        let get = |store: &mut Store<_>, name: &str| instance.get_func(store, name);
        // A reactor has to be initialized before its exports are called.
        if arguments.invoke.is_some()
            && let Some(initialize) = get(&mut store, "_initialize")
        {
            initialize.call(&mut store, &[], &mut [])?;
        }
        let func = get(&mut store, &call.export).expect("`Call::new` has found it");
        call.run(func, &mut store)
    });
    Ok(match result {
        Ok(returned) => (EndReason::Finished, returned),
        Err(error) => (end_of(&error), String::new()),
    })
}

/// An export and the values to call it with.
struct Call {
    export: String,
    parameters: Vec<Val>,
    results: usize,
}

impl Call {
    fn new(module: &Module, arguments: &Run) -> Result<Self, Failure> {
        let functions =
            || module.exports().filter_map(|export| Some((export.name(), export.ty().func()?.clone())));
        let known = || functions().map(|(name, _)| name.to_owned()).collect();
        let Some(name) = &arguments.invoke else {
            let start = functions().any(|(name, _)| name == "_start");
            return match start {
                true => Ok(Self { export: "_start".into(), parameters: Vec::new(), results: 0 }),
                false => Err(Failure::NoStart { known: known() }),
            };
        };
        let (_, ty) = functions()
            .find(|(export, _)| export == name)
            .ok_or_else(|| Failure::NoExport { name: name.clone(), known: known() })?;
        let given = &arguments.arguments;
        if ty.params().len() != given.len() {
            let types: Vec<_> = ty.params().map(|ty| ty.to_string()).collect();
            let expected = if types.is_empty() { "no arguments".to_owned() } else { types.join(", ") };
            return Err(Failure::ArgumentCount { name: name.clone(), expected, given: given.len() });
        }
        let parameters =
            ty.params().zip(given).map(|(ty, text)| value(name, &ty, text)).collect::<Result<_, _>>()?;
        Ok(Self { export: name.clone(), parameters, results: ty.results().len() })
    }

    /// Calls the function, and gives what it returns, a value a line.
    fn run(&self, func: Func, store: &mut Store<WasiP1Ctx>) -> wasmtime::Result<String> {
        let mut results = vec![Val::I32(0); self.results];
        func.call(store, &self.parameters, &mut results)?;
        let lines = results.into_iter().map(|result| match result {
            Val::I32(value) => format!("{value}\n"),
            Val::I64(value) => format!("{value}\n"),
            Val::F32(bits) => format!("{}\n", f32::from_bits(bits)),
            Val::F64(bits) => format!("{}\n", f64::from_bits(bits)),
            other => format!("{other:?}\n"),
        });
        Ok(lines.collect())
    }
}

fn value(name: &str, ty: &ValType, text: &str) -> Result<Val, Failure> {
    let wrong = || Failure::Argument { name: name.into(), text: text.into(), ty: ty.to_string() };
    // Integers have no sign of their own: 4294967295 and -1 are the same i32.
    Ok(match ty {
        ValType::I32 => Val::I32(
            text.parse().or_else(|_| text.parse::<u32>().map(u32::cast_signed)).map_err(|_| wrong())?,
        ),
        ValType::I64 => Val::I64(
            text.parse().or_else(|_| text.parse::<u64>().map(u64::cast_signed)).map_err(|_| wrong())?,
        ),
        ValType::F32 => Val::F32(text.parse::<f32>().map_err(|_| wrong())?.to_bits()),
        ValType::F64 => Val::F64(text.parse::<f64>().map_err(|_| wrong())?.to_bits()),
        _ => return Err(Failure::ArgumentType { name: name.into(), ty: ty.to_string() }),
    })
}

/// How a run ended that did not just return.
fn end_of(error: &wasmtime::Error) -> EndReason {
    match (error.downcast_ref::<I32Exit>(), error.downcast_ref::<Trap>()) {
        (Some(I32Exit(0)), _) => EndReason::Finished,
        (Some(I32Exit(status)), _) => EndReason::ExitStatus(*status),
        (_, Some(trap)) => EndReason::Trap(trap.to_string().trim_start_matches("wasm trap: ").to_owned()),
        // An error of the host: its cause, without the guest's backtrace that Wasmtime wraps it in.
        _ => EndReason::Trap(error.root_cause().to_string()),
    }
}

fn instantiate(error: wasmtime::Error) -> Failure {
    let reason = Failure::reason(&error);
    match error.is::<UnknownImportError>() {
        true => Failure::Import { reason },
        false => Failure::Instantiate { reason },
    }
}

/// What the guest gets of the world.
fn context(guest: &Loaded, arguments: &Run) -> Result<WasiCtxBuilder, Failure> {
    let mut wasi = WasiCtxBuilder::new();
    // Blocking on this thread, so that the host's work for the guest is done, and measured, where it is called.
    wasi.inherit_stdio().allow_blocking_current_thread(true).arg(&guest.name);
    if arguments.invoke.is_none() {
        wasi.args(&arguments.arguments);
    }
    for variable in &arguments.environment {
        match variable.split_once('=') {
            Some((name, value)) => wasi.env(name, value),
            None => {
                let value =
                    std::env::var(variable).map_err(|_| Failure::Environment { name: variable.clone() })?;
                wasi.env(variable, value)
            }
        };
    }
    for directory in &arguments.directories {
        let (host, inside) = directory.split_once("::").unwrap_or((directory, directory));
        wasi.preopened_dir(host, inside, FsPerms::ReadWrite).map_err(|error| Failure::Directory {
            directory: directory.clone(),
            reason: Failure::reason(&error),
        })?;
    }
    Ok(wasi)
}
