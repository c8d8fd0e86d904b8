//! The symbolizer on real images: compiled by Wasmtime from real guests, compared with tools that nobody here wrote.

mod llvm;
mod support;
