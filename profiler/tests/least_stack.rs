//! Host functions that run with the smallest stack that they can ever get: one that needs more ends the process, in a test
//! whose guest is as shallow as can be, and one that does not is left alone. On threads, on fibers, and where a guest
//! that a host function calls needs its own part of the stack.

use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use flamewalk::{Error, LeastStack};
use wasmtime::{Caller, Config, Engine, Linker, Module, Store};

/// What a guest may use, and what is left for the host below that.
const GUEST_BYTES: usize = 512 << 10;
const HOST_BYTES: usize = 256 << 10;

/// `run` calls the host at once. `deep` calls itself as often as it is told, with some hundred bytes each time.
const GUEST: &str = r#"(module
  (import "env" "need" (func $need (param i32)))
  (func (export "run") (param i32) (call $need (local.get 0)))
  (func $deep (export "deep") (param i32) (result i64) (local i64 i64 i64 i64)
    (if (result i64) (local.get 0)
      (then (i64.add (call $deep (i32.sub (local.get 0) (i32.const 1))) (i64.extend_i32_s (local.get 0))))
      (else (i64.const 0)))))"#;

/// Uses so many KiB of stack, and somewhat more.
fn use_stack(kibibytes: i32) {
    #[inline(never)]
    fn down_to(end: usize) {
        let block = black_box([1u8; 256]);
        if black_box(&block).as_ptr().addr() > end {
            down_to(end);
        }
        black_box(&block);
    }
    let here = 0_u8;
    down_to((&raw const here).addr() - ((kibibytes as usize) << 10));
}

/// Runs a guest whose host function uses so many KiB, with or without what is tested.
fn run(kibibytes: i32, asynchronous: bool, guarded: bool) {
    let mut config = Config::new();
    config.max_wasm_stack(GUEST_BYTES);
    config.async_stack_size(GUEST_BYTES + HOST_BYTES);
    let engine = Engine::new(&config).unwrap();
    let module = Module::new(&engine, GUEST).unwrap();
    let mut linker = Linker::<()>::new(&engine);
    if asynchronous {
        linker
            .func_wrap_async("env", "need", |_, (kibibytes,): (i32,)| {
                Box::new(async move {
                    tokio::task::yield_now().await;
                    use_stack(kibibytes);
                })
            })
            .unwrap();
    } else {
        linker
            .func_wrap("env", "need", |mut caller: Caller<'_, ()>, kibibytes: i32| {
                // A guest below the host function has its part of the stack all the same.
                let deep = caller.get_export("deep").unwrap().into_func().unwrap();
                deep.typed::<i32, i64>(&caller).unwrap().call(&mut caller, 3_000).unwrap();
                use_stack(kibibytes);
            })
            .unwrap();
    }
    let mut store = Store::new(&engine, ());
    if guarded {
        LeastStack::attach(&mut store).unwrap();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let instance = runtime.block_on(linker.instantiate_async(&mut store, &module)).unwrap();
    let run = instance.get_typed_func::<i32, ()>(&mut store, "run").unwrap();
    for _ in 0..3 {
        let outcome = match asynchronous {
            true => runtime.block_on(run.call_async(&mut store, kibibytes)),
            false => run.call(&mut store, kibibytes),
        };
        outcome.unwrap();
    }
}

/// A case in a process of its own, on a thread with a stack of about the same size as the fiber's.
fn in_a_process(case: &str) -> ExitStatus {
    let this = std::env::current_exe().unwrap();
    let arguments = ["--exact", "one_case", "--nocapture"];
    let output = Command::new(this).args(arguments).env("LEAST_STACK", case).output().unwrap();
    println!("{case}: {:?}", output.status);
    output.status
}

/// Does nothing unless the other tests call it in a process of its own.
#[test]
fn one_case() {
    let Ok(case) = std::env::var("LEAST_STACK") else { return };
    let [kibibytes, asynchronous, guarded] =
        case.split(' ').map(|word| word.parse().unwrap()).collect::<Vec<i32>>()[..]
    else {
        panic!("{case}")
    };
    let thread = std::thread::Builder::new().stack_size(GUEST_BYTES + HOST_BYTES);
    let thread = thread.spawn(move || run(kibibytes, asynchronous == 1, guarded == 1)).unwrap();
    thread.join().unwrap();
}

/// Half of what is left fits. Twice as much as is left does not, although a shallow guest leaves far more.
fn tells_the_two_apart(asynchronous: u8) {
    let left = HOST_BYTES >> 10;
    assert!(in_a_process(&format!("{} {asynchronous} 1", left / 2)).success());
    assert!(in_a_process(&format!("{} {asynchronous} 0", left + left / 2)).success());
    let ended = in_a_process(&format!("{} {asynchronous} 1", left + left / 2));
    assert!(matches!(ended.signal(), Some(libc::SIGSEGV | libc::SIGABRT)), "{ended:?}");
}

#[test]
fn on_a_thread() {
    tells_the_two_apart(0);
}

#[test]
fn on_a_fiber() {
    tells_the_two_apart(1);
}

/// A guest that may use more than the thread has leaves the host nothing: no host function can be safe there.
#[test]
fn a_limit_beyond_the_stack_is_refused() {
    let thread = std::thread::Builder::new().stack_size(256 << 10);
    let run = || {
        let module = Module::new(&Engine::default(), GUEST).unwrap();
        let mut linker = Linker::<()>::new(module.engine());
        linker.func_wrap("env", "need", |_: i32| ()).unwrap();
        let mut store = Store::new(module.engine(), ());
        LeastStack::attach(&mut store).unwrap();
        let instance = linker.instantiate(&mut store, &module).unwrap();
        let run = instance.get_typed_func::<i32, ()>(&mut store, "run").unwrap();
        run.call(&mut store, 1).unwrap_err()
    };
    let error = thread.spawn(run).unwrap().join().unwrap();
    assert!(matches!(error.downcast_ref(), Some(Error::Stack { .. })), "{error:?}");
}
