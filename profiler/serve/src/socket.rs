//! Where a process offers its profiles to the tools of its user.
//!
//! The socket of process PID is `flamewalk/PID.sock` in `$XDG_RUNTIME_DIR`, or if that is not set in `/run/user/UID`, or if
//! there is no such folder it is `/tmp/flamewalk-UID/PID.sock`. Only its user can use the folder, and the folder above the
//! socket is checked for that. PID is the number that the process itself has, in its own namespace.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use crate::error::ServeError;

/// Where this process offers its profiles; see [`Server::offer`](crate::Server::offer).
pub fn path() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR");
    let folders = folders(runtime.as_deref(), Uid::effective().as_raw(), Path::new("/"));
    let parent_exists = |folder: &&PathBuf| folder.parent().is_some_and(Path::is_dir);
    let folder = folders.iter().find(parent_exists).or(folders.last());
    folder.map(|folder| socket_in(folder, std::process::id())).unwrap_or_default()
}

/// The socket at which another process offers its profiles, if there is one; see [`fetch`](crate::fetch).
///
/// It is looked for wherever that process may have it, by its own environment and as it sees the file system if it is in
/// a container. That it belongs to the process is to be checked at its other end, as [`fetch`](crate::fetch) does.
pub fn offered_by(process: u32) -> Option<PathBuf> {
    let of_process = PathBuf::from(format!("/proc/{process}"));
    let user = user_of(process)?;
    let environment = fs::read(of_process.join("environ")).unwrap_or_default();
    let runtime =
        environment.split(|byte| *byte == 0).find_map(|line| line.strip_prefix(b"XDG_RUNTIME_DIR="));
    // The number that a process has for itself is the last of those that it has.
    let own_number = status(process, "NSpid:").and_then(|numbers| numbers.last().copied()).unwrap_or(process);
    let candidates = ["/".into(), of_process.join("root")].into_iter().flat_map(|root: PathBuf| {
        let number = if root == Path::new("/") { process } else { own_number };
        let folders = folders(runtime.map(OsStr::from_bytes), user, &root);
        folders.into_iter().map(move |folder| socket_in(&folder, number))
    });
    let is_socket =
        |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    candidates.into_iter().find(is_socket)
}

/// The effective user of a process. The owner of its folder in `/proc` is root if its memory is not to be dumped.
pub(crate) fn user_of(process: u32) -> Option<u32> {
    let [_real, effective, ..] = *status(process, "Uid:")? else { return None };
    Some(effective)
}

/// The numbers behind this word in what the system says of a process.
fn status(process: u32, word: &str) -> Option<Vec<u32>> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let numbers = status.lines().find_map(|line| line.strip_prefix(word))?;
    numbers.split_whitespace().map(|number| number.parse().ok()).collect()
}

/// The folders that a user's socket can be in, the preferred one first, in the file system below `root`.
fn folders(runtime: Option<&OsStr>, user: u32, root: &Path) -> Vec<PathBuf> {
    let runtime = runtime.map(Path::new).filter(|path| path.is_absolute());
    let of_user = PathBuf::from(format!("/run/user/{user}"));
    let folders = runtime.into_iter().chain([of_user.as_path()]).map(|path| path.join("flamewalk"));
    let all = folders.chain([PathBuf::from(format!("/tmp/flamewalk-{user}"))]);
    all.map(|path| root.join(path.strip_prefix("/").unwrap_or(&path))).collect()
}

fn socket_in(folder: &Path, process: u32) -> PathBuf {
    folder.join(format!("{process}.sock"))
}

/// Makes the folder for the socket of this process, or checks that it is one that nobody else can write to.
pub(crate) fn make_folder(socket: &Path) -> Result<(), ServeError> {
    let Some(folder) = socket.parent() else { return Ok(()) };
    let failed = |source| ServeError::Socket { path: socket.to_owned(), source };
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    // Not what a link of somebody else's leads to.
    let found = fs::symlink_metadata(folder).map_err(failed)?;
    if found.is_dir() && found.uid() == Uid::effective().as_raw() && found.mode() & 0o077 == 0 {
        Ok(())
    } else {
        Err(ServeError::Folder { path: folder.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_folder_is_the_users() {
        let of = |runtime: Option<&str>| folders(runtime.map(OsStr::new), 7, Path::new("/"));
        let fall_back = ["/run/user/7/flamewalk", "/tmp/flamewalk-7"].map(PathBuf::from);
        assert_eq!(of(None), fall_back);
        assert_eq!(of(Some("not/absolute")), fall_back);
        assert_eq!(of(Some("/xdg"))[0], Path::new("/xdg/flamewalk"));
        assert_eq!(of(Some("/xdg"))[1..], fall_back);
        assert_eq!(folders(None, 7, Path::new("/elsewhere"))[1], Path::new("/elsewhere/tmp/flamewalk-7"));
        assert_eq!(socket_in(&of(None)[1], 12), Path::new("/tmp/flamewalk-7/12.sock"));
    }

    #[test]
    fn a_folder_that_others_can_use_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("flamewalk");
        let socket = folder.join("1.sock");
        make_folder(&socket).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        make_folder(&socket).unwrap();
        for mode in [0o770, 0o707, 0o701] {
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(make_folder(&socket), Err(ServeError::Folder { .. })), "{mode:o}");
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        assert!(matches!(make_folder(&link.join("1.sock")), Err(ServeError::Folder { .. })));
    }
}
