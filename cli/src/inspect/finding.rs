//! A finding: the damage in a device directory, and the file that it is in.

use afterimage::internal::storage::FileName;
use serde::{Serialize, Serializer};
use std::fmt::{self, Display, Formatter};

/// Something that should not be so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    #[serde(serialize_with = "optional_display")]
    pub(crate) file: Option<FileName>,
    pub(crate) what: String,
}

impl Display for Finding {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.file {
            Some(file) => write!(f, "{file} {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

fn optional_display<S: Serializer>(value: &Option<FileName>, to: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(file) => to.collect_str(file),
        None => to.serialize_none(),
    }
}
