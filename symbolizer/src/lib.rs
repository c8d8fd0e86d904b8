//! Turns addresses in Wasmtime's compiled code into guest functions, inlined functions and source lines
