//! What is wrong with how a sink or a pusher is set up.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why profiles cannot be pushed as asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// A service without a name, or with one that the store does not take.
    #[error("`{name}` cannot be the name of a service; use letters, digits, `_`, `-`, `.` and `/`")]
    Service {
        /// The name.
        name: String,
    },
    /// The name of a label is not one.
    #[error(
        "`{name}` cannot be the name of a label; use letters, digits and `_`, and none of `__name__` and `service_name`"
    )]
    LabelName {
        /// The name.
        name: String,
    },
    /// The value of a label cannot be sent.
    #[error("the label {name} cannot have the value `{value}`: {reason}")]
    LabelValue {
        /// The label's name.
        name: String,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An address that nothing can be sent to.
    #[error("`{url}` is not the address of a server; it has to start with http:// or https://")]
    Url {
        /// The address.
        url: String,
    },
    /// A name, password or token that no header can hold.
    #[error("the {what} holds characters that cannot be sent")]
    Header {
        /// What it is. Its value is not shown.
        what: &'static str,
    },
    /// A folder that cannot be used.
    #[error("cannot use the folder `{}`: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Windows that are too short.
    #[error("windows of {window:?} are too short; a second is the least")]
    Window {
        /// Their length.
        window: Duration,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}
