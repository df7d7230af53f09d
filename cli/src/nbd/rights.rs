//! The exports that a host may open, as its certificate says.
//!
//! A certificate names them in its subject alternative names, by URIs:
//!
//! | URI | meaning |
//! |---|---|
//! | `afterimage:export:NAME:rw` | the export `NAME`, to be read and written; `*` is every one |
//! | `afterimage:export:NAME:ro` | the same, to be read |
//! | `afterimage:client:NAME` | what the host is called in events, and nothing else |
//!
//! A certificate that names none opens none; where several name one export, the widest counts.

use super::Export;
use rustls::pki_types::CertificateDer;
use std::fmt;
use std::str::FromStr;

const EXPORT: &str = "afterimage:export:";
const CLIENT: &str = "afterimage:client:";

/// An export that a certificate names, and how it may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The export's name, or `*` for every one.
    pub export: String,
    /// It may be read only.
    pub read_only: bool,
}

impl FromStr for Grant {
    type Err = String;

    /// From `NAME:ro` or `NAME:rw`.
    fn from_str(word: &str) -> Result<Grant, String> {
        let (export, read_only) = match word.rsplit_once(':') {
            Some((export, "ro")) if !export.is_empty() => (export, true),
            Some((export, "rw")) if !export.is_empty() => (export, false),
            _ => return Err(format!("`{word}` is no export and its use, such as data:rw or *:ro")),
        };
        Ok(Grant { export: export.into(), read_only })
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.export, if self.read_only { "ro" } else { "rw" })
    }
}

impl Grant {
    /// The URI that stands in a certificate.
    pub fn uri(&self) -> String {
        format!("{EXPORT}{self}")
    }
}

/// The URI by which a certificate says what its host is called.
pub fn client_uri(name: &str) -> String {
    format!("{CLIENT}{name}")
}

/// The rights of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rights {
    /// The host's name, for people.
    pub name: Option<String>,
    grants: Vec<Grant>,
}

impl Rights {
    /// Those of a host that has shown this certificate, which was found good.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Rights, webpki::Error> {
        let certificate = webpki::EndEntityCert::try_from(certificate)?;
        Ok(Rights::named(certificate.valid_uri_names()))
    }

    fn named<'a>(uris: impl Iterator<Item = &'a str>) -> Rights {
        let mut rights = Rights::default();
        for uri in uris {
            if let Some(grant) = uri.strip_prefix(EXPORT) {
                rights.grants.extend(grant.parse::<Grant>());
            } else if let Some(name) = uri.strip_prefix(CLIENT) {
                rights.name = Some(name.escape_debug().to_string());
            }
        }
        rights
    }

    /// Those of `exports` that the host may open, as it may use them.
    pub fn among(&self, exports: &[Export]) -> Vec<Export> {
        let granted = exports.iter().filter_map(|export| {
            let named = |grant: &&Grant| grant.export == "*" || grant.export == export.name;
            let mut grants = self.grants.iter().filter(named).peekable();
            grants.peek()?;
            let read_only = export.read_only || grants.all(|grant| grant.read_only);
            Some(Export { read_only, ..export.clone() })
        });
        granted.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(uris: &[&str]) -> Vec<(String, bool)> {
        let mut exports: Vec<_> = (0..)
            .zip(["data", "wal", "seen"])
            .collect::<Vec<_>>()
            .into_iter()
            .map(|(id, name)| Export::new(name, id))
            .collect();
        exports[2].read_only = true;
        let rights = Rights::named(uris.iter().copied());
        rights.among(&exports).into_iter().map(|export| (export.name, export.read_only)).collect()
    }

    #[test]
    fn the_widest_name_counts_and_no_other_opens_anything() {
        let one = |name: &str, read_only| (name.to_string(), read_only);
        assert_eq!(opened(&[]), []);
        assert_eq!(opened(&["afterimage:export:data:rw"]), [one("data", false)]);
        assert_eq!(opened(&["afterimage:export:data:ro"]), [one("data", true)]);
        let both = ["afterimage:export:*:ro", "afterimage:export:wal:rw"];
        assert_eq!(opened(&both), [one("data", true), one("wal", false), one("seen", true)]);
        assert_eq!(opened(&["afterimage:export:*:rw"])[2], one("seen", true));
        for odd in [
            "afterimage:export:data",
            "afterimage:export:data:rwx",
            "afterimage:export::rw",
            "afterimage:export:dat:rw",
            "afterimage:export:DATA:rw",
            "Afterimage:export:data:rw",
            " afterimage:export:data:rw",
            "afterimage:client:data:rw",
            "https://example.org/afterimage:export:data:rw",
        ] {
            assert_eq!(opened(&[odd]), [], "{odd}");
        }
    }
}
