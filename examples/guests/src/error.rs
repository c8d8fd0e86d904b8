//! What can go wrong when a guest is built or fetched.

use std::path::PathBuf;
use std::process::ExitStatus;

/// Why a guest could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program that the build needs could not be started.
    #[error("cannot start `{program}`; is it installed?")]
    Start {
        /// The program as it was called.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program that the build needs has failed.
    #[error("`{command}` failed ({status}):\n{stderr}")]
    Command {
        /// The program and its arguments.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to standard error.
        stderr: String,
    },
    /// A program ended well, and what it should have made or told is not there.
    #[error("`{command}` gave no {missing}")]
    Missing {
        /// The program and its arguments.
        command: String,
        /// What was expected of it.
        missing: String,
    },
    /// A guest in the text format is not valid.
    #[error("{} is no valid module", path.display())]
    Text {
        /// The source file.
        path: PathBuf,
        /// Where and why.
        source: wat::Error,
    },
    /// A module could not be made into a component.
    #[error("the module cannot be made into a component")]
    Component {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    pub(crate) fn file(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::File { action, path, source }
    }
}
