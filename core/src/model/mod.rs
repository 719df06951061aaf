//! The model directory: `model.json`, tokenizer files and one safetensors file per stage.
//!
//! - [`directory`] opens and verifies one, [`writer`] writes one that is visible only when whole.
//! - [`checkpoint`] reads tensors of PyTorch and safetensors files without executing anything.
//! - [`convert`] turns official checkpoints into a model directory, [`inspect`] tells what either holds.

pub mod checkpoint;
mod config;
pub mod convert;
pub mod directory;
pub mod inspect;
mod limits;
mod presets;
pub mod writer;

pub use config::*;
pub use directory::{DirectoryError, ModelDirectory};
pub use presets::Preset;
pub use writer::ModelWriter;

pub use crate::directory::WriteError;
