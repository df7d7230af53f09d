//! The features of a superblock beyond its version.

/// The features of a structure beyond its version, as ext4 has them. A program that does not
/// know a bit: of `compat`, ignores it and keeps it; of `ro_compat`, looks at the device and does
/// not open it; of `incompat`, reads nothing of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Ignored where it is not known.
    pub compat: u64,
    /// A program that does not know such a bit does not open the device.
    pub ro_compat: u64,
    /// A program that does not know such a bit does not read the device.
    pub incompat: u64,
}

impl Features {
    /// An incompat feature: a log may have records of many blocks (R19).
    pub const EXTENTS: u64 = 1;

    /// An incompat feature: the device is, or was, in differential mode, and may have a table.
    pub const DIFFERENTIAL: u64 = 2;

    /// An incompat feature, beside [`Features::DIFFERENTIAL`]: the group is always in differential mode, and
    /// rests in it (D7).
    pub const ALWAYS_DIFFERENTIAL: u64 = 4;

    /// The features that this program knows.
    pub const KNOWN: Features = Features {
        compat: 0,
        ro_compat: 0,
        incompat: Features::EXTENTS | Features::DIFFERENTIAL | Features::ALWAYS_DIFFERENTIAL,
    };

    /// Whether a device with these may be opened to serve.
    ///
    /// # Errors
    /// The `ro_compat` bits that this program does not know.
    pub fn check_open(&self) -> Result<(), String> {
        unknown("ro_compat", self.ro_compat & !Features::KNOWN.ro_compat)
            .map_err(|e| format!("{e}: it may be inspected and verified, not opened"))
    }
}

pub(super) fn unknown(word: &str, bits: u64) -> Result<(), String> {
    match bits {
        0 => Ok(()),
        _ => Err(format!("{word} features {bits:#x} are of a later version of this program")),
    }
}
