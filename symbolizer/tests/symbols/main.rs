//! The symbolizer on real images: compiled by Wasmtime from real guests, compared with tools that nobody here wrote.

mod fuzz_images;
mod host_calls;
mod hostile;
mod images;
mod llvm;
mod registry;
mod sources;
mod support;
