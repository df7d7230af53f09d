//! Unix sockets that only those may connect to whom their mode names.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::str::FromStr;

use crate::exit::{Exit, Failure};

/// Those who may connect to a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The mode of its file.
    pub mode: u32,
    /// Its owner; `None`: this process's user and group.
    pub owner: Option<Owner>,
}

/// The owner of a socket: a user, a group or both, by names or numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    user: Option<String>,
    group: Option<String>,
}

impl FromStr for Owner {
    type Err = String;

    fn from_str(word: &str) -> Result<Owner, String> {
        let (user, group) = word.split_once(':').unwrap_or((word, ""));
        if (user.is_empty() && group.is_empty()) || group.contains(':') {
            return Err(format!("`{word}` is no owner: \"USER\", \"USER:GROUP\" or \":GROUP\""));
        }
        let said = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        Ok(Owner { user: said(user), group: said(group) })
    }
}

impl Owner {
    /// Their numbers, as this machine's own files have them.
    fn numbers(&self) -> io::Result<(Option<u32>, Option<u32>)> {
        let number = |name: &Option<String>, file| {
            name.as_deref().map(|name| number(name, Path::new(file))).transpose()
        };
        Ok((number(&self.user, "/etc/passwd")?, number(&self.group, "/etc/group")?))
    }
}

/// The number of `name` in a file of users or groups.
fn number(name: &str, file: &Path) -> io::Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let all = fs::read_to_string(file)?;
    let found = all.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    });
    found.ok_or_else(|| {
        let what = format!("{} has no {name}: give the number", file.display());
        io::Error::new(io::ErrorKind::NotFound, what)
    })
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.user.as_deref().unwrap_or_default())?;
        self.group.as_ref().map_or(Ok(()), |group| write!(f, ":{group}"))
    }
}

/// A socket at `path` for those whom `access` names, which it has before anybody can connect: until then it is under another
/// name, in a folder that is its owner's alone. A socket that stands there is replaced.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] if something else stands there; [`io::ErrorKind::InvalidInput`] if this process may
/// not give it that owner, or there is none of that name, or the path is too long for a socket; the system's.
pub fn bind(path: &Path, access: &Access) -> io::Result<UnixListener> {
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
    if let Some(owner) = &access.owner {
        let given = owner.numbers().and_then(|(user, group)| chown(&new, user, group));
        given.map_err(|error| {
            let mut what = format!("giving {} to `{owner}`: {error}", path.display());
            if error.kind() == io::ErrorKind::PermissionDenied {
                what += "; a service that is not root's can give a socket to a group that it is in, and to no other user";
            }
            io::Error::new(io::ErrorKind::InvalidInput, what)
        })?;
    }
    fs::set_permissions(&new, Permissions::from_mode(access.mode))?;
    fs::rename(&new, path)?;
    Ok(listener)
}

/// The failure of a [`bind`] while `opening` something.
pub fn failure(opening: impl fmt::Display, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::InvalidInput => Failure::new(Exit::Usage, format!("{opening}: {error}")),
        _ => Failure::storage(opening, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_socket_replaces_a_socket_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let with = |mode| bind(&path, &Access { mode, owner: None });
        drop(with(0o600).unwrap());
        UnixStream::connect(&path).unwrap_err();
        let listener = with(0o620).unwrap();
        UnixStream::connect(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o620);
        drop(listener);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "letter").unwrap();
        assert_eq!(with(0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_owner_is_found_by_name_and_number() {
        let numbers = |word: &str| word.parse::<Owner>().unwrap().numbers().unwrap();
        for word in ["root", "7:root", ":12"] {
            assert_eq!(word.parse::<Owner>().unwrap().to_string(), word);
        }
        assert_eq!(numbers("root"), (Some(0), None));
        assert_eq!(numbers("7:root"), (Some(7), Some(0)));
        assert_eq!(numbers(":12"), (None, Some(12)));
        for odd in ["", ":", "a:b:c"] {
            assert!(odd.parse::<Owner>().unwrap_err().contains("is no owner"), "{odd}");
        }
        let unknown = ":no such group".parse::<Owner>().unwrap().numbers().unwrap_err();
        assert!(unknown.to_string().contains("/etc/group has no no such group"), "{unknown}");
    }
}
