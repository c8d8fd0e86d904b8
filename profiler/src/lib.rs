//! A sampling profiler for WebAssembly guests that run in process on Wasmtime
