//! Writing a model directory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::directory::{NewDirectory, WriteError};
use crate::model::{FileDigest, MODEL_FILE, ModelConfig};

/// A model directory in the making; see [`NewDirectory`] for what becomes of it until it is whole.
#[derive(Debug)]
pub struct ModelWriter {
    directory: NewDirectory,
    files: BTreeMap<String, FileDigest>,
}

impl ModelWriter {
    /// Begins the model directory `out`, whose parents are created.
    ///
    /// # Errors
    /// `out` exists and is not an empty directory, or nothing can be written beside it.
    pub fn create(out: &Path) -> Result<Self, WriteError> {
        Ok(Self { directory: NewDirectory::create(out)?, files: BTreeMap::new() })
    }

    /// Whether a model directory may be written to `out`.
    ///
    /// # Errors
    /// `out` exists and is not an empty directory.
    pub fn check(out: &Path) -> Result<(), WriteError> {
        NewDirectory::check(out)
    }

    /// Writes a file, whose name may have one directory in front.
    ///
    /// # Errors
    /// The first error of `content`, or that of the operating system.
    pub fn write<E: From<WriteError>>(
        &mut self,
        name: &str,
        content: impl FnOnce(&mut Sink) -> Result<(), E>,
    ) -> Result<FileDigest, E> {
        let path = self.directory.path().join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)
                .map_err(|source| WriteError::Io { path: parent.to_owned(), source })?;
        }
        let mut sink = Sink::create(path)?;
        content(&mut sink)?;
        let digest = sink.finish()?;
        self.files.insert(name.to_owned(), digest.clone());
        Ok(digest)
    }

    /// Copies a file.
    ///
    /// # Errors
    /// Either file fails.
    pub fn copy(&mut self, from: &Path, name: &str) -> Result<FileDigest, WriteError> {
        let io = |source| WriteError::Io { path: from.to_owned(), source };
        let mut source = File::open(from).map_err(io)?;
        self.write(name, |sink| io::copy(&mut source, sink).map(drop).map_err(io))
    }

    /// Writes `model.json`, in which `files` is filled in, and makes the directory visible.
    ///
    /// # Errors
    /// The operating system refuses, or the place was taken in the meantime.
    pub fn finish(mut self, mut config: ModelConfig) -> Result<PathBuf, WriteError> {
        config.files = std::mem::take(&mut self.files);
        self.write(MODEL_FILE, |sink| {
            let path = sink.path.clone();
            let io = |source| WriteError::Io { path: path.clone(), source };
            serde_json::to_writer_pretty(&mut *sink, &config).map_err(|e| io(e.into()))?;
            sink.write_all(b"\n").map_err(io)
        })?;
        self.directory.finish()
    }
}

/// A file being written, whose digest is computed on the way.
#[derive(Debug)]
pub struct Sink {
    path: PathBuf,
    file: BufWriter<File>,
    digest: Sha256,
    bytes: u64,
}

impl Sink {
    fn create(path: PathBuf) -> Result<Self, WriteError> {
        match File::create(&path) {
            Ok(file) => Ok(Self { path, file: BufWriter::new(file), digest: Sha256::new(), bytes: 0 }),
            Err(source) => Err(WriteError::Io { path, source }),
        }
    }

    /// The file's path while the directory is in the making.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.write_all(bytes).map_err(|source| WriteError::Io { path: self.path.clone(), source })
    }

    fn finish(self) -> Result<FileDigest, WriteError> {
        let Self { path, file, digest, bytes } = self;
        let synced =
            file.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| file.sync_all());
        match synced {
            Ok(()) => Ok(FileDigest { sha256: hex(&digest.finalize()), bytes }),
            Err(source) => Err(WriteError::Io { path, source }),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn an_unfinished_directory_is_never_visible_and_goes_away() {
        let place = tempfile::tempdir().unwrap();
        let out = place.path().join("deep/model");
        let mut writer = ModelWriter::create(&out).unwrap();
        writer.write::<WriteError>("sub/a", |sink| sink.put(b"abc")).unwrap();
        assert!(!out.exists());
        let beside = names(&place.path().join("deep"));
        assert!(beside.len() == 1 && beside[0].starts_with(".model.partial-"), "{beside:?}");
        drop(writer);
        assert!(names(&place.path().join("deep")).is_empty());
    }

    #[test]
    fn a_panic_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        let out = place.path().join("model");
        let result = std::panic::catch_unwind(|| {
            let mut writer = ModelWriter::create(&out).unwrap();
            writer.write::<WriteError>("a", |_| panic!("on purpose")).unwrap();
        });
        assert!(result.is_err());
        assert!(names(place.path()).is_empty());
    }

    #[test]
    fn what_exists_is_not_overwritten() {
        let place = tempfile::tempdir().unwrap();
        assert!(ModelWriter::create(place.path()).is_ok(), "an empty directory may be filled");
        fs::write(place.path().join("precious"), "x").unwrap();
        for taken in [place.path().to_owned(), place.path().join("precious")] {
            let error = ModelWriter::create(&taken).unwrap_err();
            assert!(matches!(&error, WriteError::Exists(path) if *path == taken), "{error}");
        }
        assert_eq!(names(place.path()), ["precious"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_model_directory_is_as_readable_as_any_other() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let usual = place.path().join("usual");
        fs::create_dir(&usual).unwrap();
        let writer = ModelWriter::create(&place.path().join("model")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(writer.directory.path()), mode(&usual));
    }

    #[test]
    fn digests_are_those_of_the_files() {
        let place = tempfile::tempdir().unwrap();
        let mut writer = ModelWriter::create(&place.path().join("model")).unwrap();
        let digest = writer.write::<WriteError>("a", |sink| sink.put(b"abc")).unwrap();
        assert_eq!(digest.bytes, 3);
        assert_eq!(digest.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
