//! Unix sockets that only those may connect to whom their mode names.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

/// A socket at `path` with this `mode`, which it has before anybody can connect: until then it is under another
/// name, in a folder that is its owner's alone. A socket that stands there is replaced.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] if something else stands there; the system's.
pub fn bind(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let is_other =
        |found: fs::Metadata| !std::os::unix::fs::FileTypeExt::is_socket(&found.file_type());
    if fs::symlink_metadata(path).is_ok_and(is_other) {
        let what = format!("{}: something that is no socket stands there", path.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let made =
        tempfile::Builder::new().prefix(".socket").tempdir_in(dir.unwrap_or(Path::new(".")))?;
    let new = made.path().join("s");
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(mode))?;
    fs::rename(&new, path)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_socket_replaces_a_socket_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(bind(&path, 0o600).unwrap());
        UnixStream::connect(&path).unwrap_err();
        let listener = bind(&path, 0o620).unwrap();
        UnixStream::connect(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o620);
        drop(listener);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "letter").unwrap();
        assert_eq!(bind(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
