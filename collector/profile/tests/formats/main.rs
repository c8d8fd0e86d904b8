//! The file formats: what is kept, what other tools read, and what damaged files do.

mod agreement;
mod damage;
mod firefox;
mod native;
mod npm;
mod pprof;
mod profiles;
mod speedscope;
