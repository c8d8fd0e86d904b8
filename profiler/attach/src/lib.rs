//! Profiles a running program that embeds Wasmtime, from outside and without its help.
