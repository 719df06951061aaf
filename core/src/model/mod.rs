//! The model directory: `model.json`, tokenizer files and one safetensors file per stage.

mod config;

pub use config::*;
