//! What can go wrong when profiles are offered, or fetched from who offers them.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why profiles cannot be offered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// An address that other machines can reach.
    #[error(
        "{address} can be reached from elsewhere, and whoever reaches it sees everything; use a loopback address"
    )]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened at.
    #[error("cannot listen at {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The socket cannot be made.
    #[error("cannot make the socket `{}`: {source}", path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is something at the path of the socket that is not one which nobody listens at any more.
    #[error("cannot make the socket `{}`: {what} already; remove it or use another path", path.display())]
    Occupied {
        /// The path.
        path: PathBuf,
        /// What there is.
        what: &'static str,
    },
    /// The folder for the socket belongs to somebody else, or others may write to it.
    #[error("`{}` is not a folder that only its owner, the user of this process, can use; remove it or set $XDG_RUNTIME_DIR", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// The server's thread cannot be started.
    #[error("cannot start the server: {source}")]
    Thread {
        /// What the system said.
        source: io::Error,
    },
}

/// Why a profile cannot be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Nobody listens there, or the way there is broken.
    #[error("cannot ask `{}` for a profile: {reason}", path.display())]
    Connection {
        /// The path of the socket.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// Another process listens there than the one that should.
    #[error("`{}` belongs to process {found} of user {user}, and not to process {expected}", path.display())]
    OtherProcess {
        /// The path of the socket.
        path: PathBuf,
        /// The process that should listen.
        expected: u32,
        /// The process that does.
        found: i32,
        /// The user that it runs as.
        user: u32,
    },
    /// The process listens there, and has made the socket as another user than it is now.
    #[error("`{}` was made by user {found}, and the process runs as user {expected}", path.display())]
    OtherUser {
        /// The path of the socket.
        path: PathBuf,
        /// The user that the process runs as.
        expected: u32,
        /// The user that has made the socket.
        found: u32,
    },
    /// The other side says no.
    #[error("{message}")]
    Refused {
        /// The status of its response.
        status: u16,
        /// What it said, in a sentence.
        message: String,
    },
    /// What came is no profile.
    #[error("what `{}` has sent is no profile: {source}", path.display())]
    NotProfile {
        /// The path of the socket.
        path: PathBuf,
        /// Why not.
        source: flamewalk_profile::ProfileError,
    },
    /// There is no answer in time.
    #[error("`{}` has not answered within {seconds} s", path.display())]
    NoAnswer {
        /// The path of the socket.
        path: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
}
