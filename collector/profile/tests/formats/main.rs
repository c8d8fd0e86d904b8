//! The file formats: what is kept, what other tools read, and what damaged files do.

mod agreement;
mod damage;
mod native;
mod pprof;
mod profiles;
