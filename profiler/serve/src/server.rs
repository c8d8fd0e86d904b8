//! A small server for those who have none: on a thread of its own, at a loopback address or at a Unix socket.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use crate::connection::{self, Guard};
use crate::error::ServeError;
use crate::on_demand::OnDemand;
use crate::socket;

/// How many connections there can be; further ones wait until others end.
const MAX_CONNECTIONS: usize = 64;
/// How long nobody is let in after that has failed, as when the process has no file left.
const RECOVERY: Duration = Duration::from_millis(100);

/// A running server. Dropping it closes all its connections and ends its thread, which finishes a profile that is being
/// made; nothing is sampled for it afterwards.
#[derive(Debug)]
pub struct Server {
    address: Address,
    /// Dropped, it ends the thread.
    running: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// The process that has the thread.
    process: u32,
}

#[derive(Debug)]
enum Address {
    Tcp(SocketAddr),
    Unix {
        path: PathBuf,
        /// Device and number of the file, by which it is known to be ours.
        file: (u64, u64),
    },
}

enum Listener {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Server {
    /// A server at a loopback address; port 0 stands for any that is free.
    ///
    /// Every user of the machine can reach it. Requests have to call it by an address, or `localhost`.
    ///
    /// # Errors
    /// [`ServeError::NotLoopback`] for another address; [`ServeError::Listen`] or [`ServeError::Thread`] if the system
    /// refuses.
    pub fn tcp(on_demand: OnDemand, address: SocketAddr) -> Result<Self, ServeError> {
        if !address.ip().is_loopback() {
            return Err(ServeError::NotLoopback { address });
        }
        let listen = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, listener))
        };
        let (address, listener) = listen().map_err(|source| ServeError::Listen { address, source })?;
        let listener = move || Ok(Listener::Tcp(tokio::net::TcpListener::from_std(listener)?));
        Self::start(on_demand, Address::Tcp(address), listener)
    }

    /// A server at the socket where tools of the same user look for it, by the number of this process: [`path`](crate::path).
    ///
    /// # Errors
    /// As for [`Server::unix`], and [`ServeError::Folder`] if others can use the folder of the socket.
    pub fn offer(on_demand: OnDemand) -> Result<Self, ServeError> {
        let path = socket::path();
        socket::make_folder(&path)?;
        Self::unix(on_demand, &path)
    }

    /// A server at a Unix socket, which only the user of this process, and root, can ask. A socket that is left there from
    /// a process that has ended is replaced.
    ///
    /// # Errors
    /// [`ServeError::Occupied`] if there is anything else, or somebody listens there; [`ServeError::Socket`] or
    /// [`ServeError::Thread`] if the system refuses.
    pub fn unix(on_demand: OnDemand, path: &Path) -> Result<Self, ServeError> {
        let failed = |source| ServeError::Socket { path: path.to_owned(), source };
        make_room(path)?;
        let listen = || {
            let listener = UnixListener::bind(path)?;
            // Who gets in before that is asked who it is, as everybody is.
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
            listener.set_nonblocking(true)?;
            let file = fs::symlink_metadata(path)?;
            Ok((listener, (file.dev(), file.ino())))
        };
        let (listener, file) = listen().map_err(failed)?;
        let listener = move || Ok(Listener::Unix(tokio::net::UnixListener::from_std(listener)?));
        Self::start(on_demand, Address::Unix { path: path.to_owned(), file }, listener)
    }

    /// Where it listens, if it is at a loopback address.
    pub fn address(&self) -> Option<SocketAddr> {
        match self.address {
            Address::Tcp(address) => Some(address),
            Address::Unix { .. } => None,
        }
    }

    /// The path of its socket, if it has one.
    pub fn path(&self) -> Option<&Path> {
        match &self.address {
            Address::Tcp(_) => None,
            Address::Unix { path, .. } => Some(path),
        }
    }

    fn start(
        on_demand: OnDemand,
        address: Address,
        listener: impl FnOnce() -> io::Result<Listener>,
    ) -> Result<Self, ServeError> {
        let (running, ended) = oneshot::channel();
        let start = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let listener = {
                let _within = runtime.enter();
                listener()?
            };
            std::thread::Builder::new().name("flamewalk-serve".into()).spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = accept(listener, on_demand) => {}
                        // The sender is never used; it is dropped.
                        _ = ended => {}
                    }
                });
            })
        };
        let thread = start().map_err(|source| ServeError::Thread { source })?;
        Ok(Self { address, running: Some(running), thread: Some(thread), process: std::process::id() })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.running = None;
        let thread = self.thread.take();
        if self.process != std::process::id() {
            // In a fork of the process there is no such thread, and the socket is the parent's.
            std::mem::forget(thread);
            return;
        }
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the server of profiles has panicked");
        }
        if let Address::Unix { path, file } = &self.address
            && fs::symlink_metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == *file)
            && let Err(error) = fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "the socket is left behind");
        }
    }
}

/// Removes a socket that nobody listens at any more.
fn make_room(path: &Path) -> Result<(), ServeError> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    let occupied = |what| ServeError::Occupied { path: path.to_owned(), what };
    if !found.file_type().is_socket() {
        return Err(occupied("a file is there"));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|source| ServeError::Socket { path: path.to_owned(), source })
        }
        _ => Err(occupied("somebody listens there")),
    }
}

async fn accept(listener: Listener, on_demand: OnDemand) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Never closed, so that this is always one.
        let place = Arc::clone(&room).acquire_owned().await;
        let accepted = match &listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                let on_demand = on_demand.clone();
                tokio::spawn(async move {
                    let _place = place;
                    connection::serve(stream, Guard::Host, on_demand).await;
                })
            }),
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                let on_demand = on_demand.clone();
                tokio::spawn(async move {
                    let _place = place;
                    let guard = Guard::of(&stream);
                    connection::serve(stream, guard, on_demand).await;
                })
            }),
        };
        if let Err(error) = accepted {
            tracing::warn!(%error, "a connection is not accepted");
            tokio::time::sleep(RECOVERY).await;
        }
    }
}
