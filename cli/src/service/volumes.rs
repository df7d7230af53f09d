//! The names of a device's volumes: what hosts call an export.
//!
//! The engine knows volumes by numbers. `DIR/volumes.json` has their names, the same at both devices.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::durable;

pub const FILE: &str = "volumes.json";

/// A longer file is no list of names.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Bytes of a name at most: NBD's bound is 4,096, and a name is to fit on a line.
const NAME_BYTES_MAX: usize = 255;

/// A volume and its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// The engine's number.
    pub id: u32,
    /// The export's name.
    pub name: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    volumes: Vec<Named>,
}

/// Whether `name` can be a volume's.
pub fn check_name(name: &str) -> Result<(), String> {
    let is_of_names = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(format!(
            "a volume's name has 1 to {NAME_BYTES_MAX} bytes, `{name}` has {}",
            name.len()
        ));
    }
    match name.chars().find(|&c| !is_of_names(c)) {
        Some(c) => Err(format!(
            "the volume's name `{name}` has {c:?}: letters, digits, `-`, `_` and `.` may be in it"
        )),
        None => Ok(()),
    }
}

/// Writes the names durably into the directory of a device.
pub fn write(dir: &Path, volumes: &[Named]) -> io::Result<()> {
    let file = File { version: 1, volumes: volumes.to_vec() };
    durable::replace(&dir.join(FILE), &serde_json::to_vec_pretty(&file)?, true)
}

/// The names of the volumes `ids` of the device in `dir`; a volume that has none is named by its number.
///
/// # Errors
/// A sentence that says what was found in the file, and what to do about it.
pub fn read(dir: &Path, ids: impl Iterator<Item = u32>) -> Result<Vec<Named>, String> {
    let path = dir.join(FILE);
    let numbered = |ids: &mut dyn Iterator<Item = u32>| {
        ids.map(|id| Named { id, name: format!("volume-{id}") }).collect::<Vec<_>>()
    };
    let wrong = |what: String| {
        format!(
            "{}: {what}; mend it, or remove it: then volumes are named by numbers",
            path.display()
        )
    };
    let text = durable::read(&path, FILE_BYTES_MAX).map_err(|e| wrong(e.to_string()))?;
    let Some(text) = text else { return Ok(numbered(&mut { ids })) };
    let file: File = serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))?;
    if file.version != 1 {
        return Err(wrong(format!("it is of version {}, and this program reads 1", file.version)));
    }
    let mut named = std::collections::HashMap::new();
    let mut names = std::collections::HashSet::new();
    for Named { id, name } in file.volumes {
        check_name(&name).map_err(wrong)?;
        if !names.insert(name.clone()) || named.insert(id, name.clone()).is_some() {
            return Err(wrong(format!("volume {id}, `{name}`, stands there twice")));
        }
    }
    let all = ids.map(|id| {
        let name = named.remove(&id);
        name.map(|name| Named { id, name }).ok_or_else(|| wrong(format!("volume {id} has no name")))
    });
    let all = all.collect::<Result<Vec<_>, _>>()?;
    match named.keys().next() {
        Some(id) => Err(wrong(format!("the device has no volume {id}"))),
        None => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(id: u32, name: &str) -> Named {
        Named { id, name: name.into() }
    }

    #[test]
    fn names_are_read_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path(), [3].into_iter()).unwrap(), [named(3, "volume-3")]);
        let names = [named(0, "data"), named(1, "wal.2")];
        write(dir.path(), &names).unwrap();
        assert_eq!(read(dir.path(), [0, 1].into_iter()).unwrap(), names);
    }

    #[test]
    fn a_file_that_does_not_fit_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let one = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read(dir.path(), [0].into_iter()).unwrap_err()
        };
        let volumes = |list: &str| one(&format!("{{\"version\": 1, \"volumes\": [{list}]}}"));
        let entry = r#"{"id": 0, "name": "a"}"#;
        for (why, found) in [
            ("expected", one("no json")),
            ("of version 2", one(r#"{"version": 2, "volumes": []}"#)),
            ("has no name", volumes("")),
            ("twice", volumes(&format!("{entry}, {entry}"))),
            ("no volume 7", volumes(&format!(r#"{entry}, {{"id": 7, "name": "b"}}"#))),
            ("' '", volumes(r#"{"id": 0, "name": "a b"}"#)),
            ("unknown field", volumes(r#"{"id": 0, "name": "a", "size": 1}"#)),
        ] {
            assert!(found.contains(why) && found.contains(FILE), "{why}: {found}");
        }
    }
}
