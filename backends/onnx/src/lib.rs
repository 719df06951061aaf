//! The ONNX Runtime engine.
//!
//! Networks are not executed operation by operation: [`Recorder`] writes their operations down once, and ONNX
//! Runtime runs the graphs on one of its execution providers. The library is loaded at run time; a program with
//! this engine starts without it, and says what is missing when a stage asks for the engine.

mod backend;
mod executor;
mod export;
mod graph;
mod immediate;
mod join;
mod library;
mod narrow;
mod program;
mod provider;
mod recorder;
mod session;
mod value;

pub use backend::OnnxBackend;
pub use export::{ExportError, ExportOptions, export};
pub use immediate::{ImmediateEngine, ImmediateTensor};
pub use library::{LIBRARY_VARIABLE, LibraryError};
pub use recorder::{Element, Operators, Recorded, Recorder, Size};
