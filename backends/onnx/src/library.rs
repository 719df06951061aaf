//! Finding and opening ONNX Runtime's library.
//!
//! The library is looked at with `dlopen` before the bindings are told of it: they wait for ever on one that
//! cannot be loaded.

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use libloading::{Library, Symbol};
use ort::environment::Environment;
use ort::sys;

/// Names the library's file, where nothing is configured.
pub const LIBRARY_VARIABLE: &str = "ORT_DYLIB_PATH";

/// Where `cargo xtask engines` puts the library, below the repository.
const FETCHED: &str = ".cache/engines/onnxruntime";

/// ONNX Runtime's library cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LibraryError {
    /// There is no such file.
    #[error("{} names {}, which does not exist", origin, path.display())]
    Missing {
        /// What names the file.
        origin: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// There is none anywhere.
    #[error("there is no library of ONNX Runtime: {0}")]
    NotFound(String),
    /// The file cannot be loaded.
    #[error("{} cannot be loaded: {message}", path.display())]
    NotLoadable {
        /// The file.
        path: PathBuf,
        /// The loader's reason.
        message: String,
    },
    /// The file is another library.
    #[error("{} is not ONNX Runtime: {message}", path.display())]
    NotOnnxRuntime {
        /// The file.
        path: PathBuf,
        /// What it lacks.
        message: String,
    },
    /// The library does not speak the interface this build needs.
    #[error("{} is ONNX Runtime {version}; 1.{} or newer is needed", path.display(), ort::MINOR_VERSION)]
    TooOld {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: String,
    },
    /// The process has loaded another one, and can only have one.
    #[error("{} cannot be loaded: the process already uses {}", path.display(), loaded.display())]
    AnotherOne {
        /// The file asked for.
        path: PathBuf,
        /// The file in use.
        loaded: PathBuf,
    },
    /// The library refuses to start.
    #[error("{} cannot be initialised: {message}", path.display())]
    NotInitialised {
        /// The file.
        path: PathBuf,
        /// The library's reason.
        message: String,
    },
}

impl LibraryError {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::AnotherOne { .. } => "configure one library for all deployments".to_owned(),
            _ => format!(
                "fetch it with `cargo xtask engines`, or name the file of ONNX Runtime 1.{} or newer in \
                 `engines.onnx.library` or {LIBRARY_VARIABLE}",
                ort::MINOR_VERSION
            ),
        }
    }
}

/// The library of this process and its environment.
#[derive(Clone)]
pub(crate) struct Runtime {
    path: PathBuf,
    environment: Environment,
}

impl Runtime {
    /// The library named in the configuration, or else in the environment, or else the one that is found.
    pub(crate) fn load(configured: Option<&Path>) -> Result<Self, LibraryError> {
        static LOADED: Mutex<Option<Runtime>> = Mutex::new(None);
        let path = locate(configured)?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = loaded.as_ref() {
            return if runtime.path == path {
                Ok(runtime.clone())
            } else {
                Err(LibraryError::AnotherOne { path, loaded: runtime.path.clone() })
            };
        }
        probe(&path)?;
        let refused = |e: &dyn std::fmt::Display| LibraryError::NotInitialised {
            path: path.clone(),
            message: e.to_string(),
        };
        let builder = ort::init_from(&path).map_err(|e| refused(&e))?;
        let environment =
            builder.with_name("smartedit").with_telemetry(false).build().map_err(|e| refused(&e))?;
        let runtime = Self { path, environment };
        *loaded = Some(runtime.clone());
        Ok(runtime)
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn locate(configured: Option<&Path>) -> Result<PathBuf, LibraryError> {
    let named = match configured {
        Some(path) => Some(("the configuration", path.to_owned())),
        None => std::env::var_os(LIBRARY_VARIABLE)
            .filter(|value| !value.is_empty())
            .map(|value| (LIBRARY_VARIABLE, PathBuf::from(value))),
    };
    if let Some((origin, path)) = named {
        return path.canonicalize().map_err(|_| LibraryError::Missing { origin, path });
    }
    let program = std::env::current_exe().map_err(|e| LibraryError::NotFound(e.to_string()))?;
    let mut searched = Vec::new();
    for (depth, directory) in program.ancestors().skip(1).enumerate() {
        let beside = (depth == 0).then(|| directory.to_owned());
        for place in beside.into_iter().chain([directory.join(FETCHED)]) {
            if let Some(path) = newest_in(&place) {
                return Ok(path);
            }
            searched.push(place);
        }
    }
    let searched: Vec<String> = searched.iter().map(|place| place.display().to_string()).collect();
    Err(LibraryError::NotFound(format!("not in {}", searched.join(", "))))
}

/// The library of the highest version in a directory.
fn newest_in(directory: &Path) -> Option<PathBuf> {
    let stem = format!("{}onnxruntime", std::env::consts::DLL_PREFIX);
    let version = |path: &Path| {
        let rest = path.file_name()?.to_str()?.strip_prefix(&stem)?;
        let is_library = rest.starts_with('.') && rest.contains(std::env::consts::DLL_EXTENSION);
        let numbers = rest.split('.').filter_map(|part| part.parse().ok());
        is_library.then(|| numbers.collect::<Vec<u32>>())
    };
    std::fs::read_dir(directory)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter_map(|path| Some((version(&path)?, path)))
        .max()
        .and_then(|(_, path)| path.canonicalize().ok())
}

/// Makes sure that a file is ONNX Runtime and new enough.
#[allow(unsafe_code)]
fn probe(path: &Path) -> Result<(), LibraryError> {
    let other =
        |message: &str| LibraryError::NotOnnxRuntime { path: path.to_owned(), message: message.to_owned() };
    // SAFETY: loading a library runs its initialisers. Which file that is, is the operator's decision, as for
    // every library that the program is linked with.
    let library = unsafe { Library::new(path) }
        .map_err(|e| LibraryError::NotLoadable { path: path.to_owned(), message: e.to_string() })?;
    // SAFETY: the symbol has this signature in every release of ONNX Runtime.
    let base: Symbol<'_, unsafe extern "C" fn() -> *const sys::OrtApiBase> =
        unsafe { library.get(b"OrtGetApiBase\0") }.map_err(|_| other("it has no `OrtGetApiBase`"))?;
    // SAFETY: the function takes nothing and returns a pointer to a static structure or null.
    let base = unsafe { base().as_ref() }.ok_or_else(|| other("`OrtGetApiBase` returns nothing"))?;
    // SAFETY: the structure's functions take what they are given here and return pointers to static data or null.
    let (version, api) = unsafe { ((base.GetVersionString)(), (base.GetApi)(sys::ORT_API_VERSION)) };
    if version.is_null() {
        return Err(other("it has no version"));
    }
    // SAFETY: the pointer is not null, and the text it points at is static and ends with a zero.
    let version = unsafe { CStr::from_ptr(version) }.to_string_lossy().into_owned();
    let minor = version.strip_prefix("1.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    let new_enough = minor.is_some_and(|minor| minor >= ort::MINOR_VERSION);
    if api.is_null() || !new_enough {
        return Err(LibraryError::TooOld { path: path.to_owned(), version });
    }
    // The bindings open it again; it must not be unloaded in between.
    std::mem::forget(library);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_missing_or_no_library_is_named() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let missing = directory.path().join("libonnxruntime.so");
        let error = locate(Some(&missing)).expect_err("nothing is there");
        assert!(matches!(error, LibraryError::Missing { .. }), "{error}");
        assert!(error.remedy().contains("cargo xtask engines"), "{}", error.remedy());

        std::fs::write(&missing, "no library").expect("the file can be written");
        let error = probe(&missing).expect_err("text is no library");
        assert!(matches!(error, LibraryError::NotLoadable { .. }), "{error}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn another_library_is_not_taken_for_onnx_runtime() {
        let error = probe(Path::new("libc.so.6")).expect_err("the C library is another one");
        assert!(matches!(error, LibraryError::NotOnnxRuntime { .. }), "{error}");
    }

    #[test]
    fn the_newest_library_of_a_directory_is_taken() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let name = |version: &str| format!("{}onnxruntime{version}", std::env::consts::DLL_PREFIX);
        let extension = std::env::consts::DLL_EXTENSION;
        for file in [
            name(&format!(".{extension}.1.9.0")),
            name(&format!(".{extension}.1.31.1")),
            name(&format!("_providers_shared.{extension}")),
        ] {
            std::fs::write(directory.path().join(file), "").expect("the file can be written");
        }
        let found = newest_in(directory.path()).expect("there are two");
        assert!(found.to_string_lossy().ends_with("1.31.1"), "{}", found.display());
        assert_eq!(newest_in(&directory.path().join("nowhere")), None);
    }
}
