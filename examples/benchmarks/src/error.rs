//! What can go wrong in a benchmark.

use std::path::PathBuf;

/// Why there is no number.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine cannot tell.
    #[error("{0}")]
    Machine(String),
    /// A file could not be read or written.
    #[error("cannot access {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program could not be run.
    #[error("cannot run `{program}`: {reason}")]
    Program {
        /// The program.
        program: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A guest could not be had.
    #[error(transparent)]
    Guest(#[from] flamewalk_guests::Error),
    /// Wasmtime has refused something, or the guest has failed.
    #[error("{0:#}")]
    Wasmtime(#[from] wasmtime::Error),
    /// The profiler has refused something.
    #[error(transparent)]
    Profiler(#[from] flamewalk::Error),
    /// A profile could not be read or written.
    #[error(transparent)]
    Profile(#[from] flamewalk::profile::ProfileError),
    /// A system call has failed.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// What a measuring process or a tool has written is not what is expected of it.
    #[error("cannot understand {what}: {reason}")]
    Unexpected {
        /// What was read.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    pub fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { path, source }
    }

    pub fn system(action: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::System { action, source }
    }
}
