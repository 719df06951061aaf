//! Files that settings name.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::SecurityError;

/// Largest file of certificates or keys.
const MAX_BYTES: u64 = 4 << 20;

/// A file that a setting names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named<'a> {
    pub(super) setting: &'a str,
    pub(super) path: &'a Path,
}

impl Named<'_> {
    pub(super) fn read(self) -> Result<Vec<u8>, SecurityError> {
        let mut bytes = Vec::new();
        let read = File::open(self.path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
        read.map_err(|source| SecurityError::Read {
            setting: self.setting.to_owned(),
            path: self.path.to_owned(),
            source,
        })?;
        match bytes.len() as u64 > MAX_BYTES {
            true => Err(self.wrong(format!("has more than {MAX_BYTES} bytes"))),
            false => Ok(bytes),
        }
    }

    pub(super) fn read_text(self) -> Result<String, SecurityError> {
        String::from_utf8(self.read()?).map_err(|_| self.wrong("is not UTF-8"))
    }

    /// That the file does not hold what it should.
    pub(super) fn wrong(self, message: impl ToString) -> SecurityError {
        SecurityError::Content {
            setting: self.setting.to_owned(),
            path: self.path.to_owned(),
            message: message.to_string(),
        }
    }

    /// Warns where every user of the machine may read a secret.
    pub(super) fn warn_if_public(self) {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(self.path).map_or(0, |metadata| metadata.permissions().mode());
            if mode & 0o004 != 0 {
                let (setting, file) = (self.setting, self.path.display());
                tracing::warn!(setting, %file, "every user of this machine may read this secret; `chmod o-r` it");
            }
        }
    }
}
