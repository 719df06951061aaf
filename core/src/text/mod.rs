//! Tokenizers and the prompt template.

use std::path::PathBuf;

/// A text cannot be tokenized, or a tokenizer cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// A tokenizer file cannot be used.
    #[error("tokenizer {}: {message}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A text cannot be tokenized.
    #[error("cannot tokenize the text: {0}")]
    Encode(String),
}
