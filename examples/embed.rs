//! Profile one guest from an embedder's own program.
fn main() {}
