//! Tokenizers and the prompt template.
//!
//! Both tokenizers reproduce the *slow* tokenizers of transformers 4.28.1, which the models were trained with:
//! [`LlamaTokenizer`] for SmartEdit's language model, [`ClipTokenizer`] for the CLIP text encoder. A [`Prompt`]
//! keeps apart what the template says and what the user says, so that control tokens spelled out in an
//! instruction stay text.

mod bpe;
mod charsmap;
mod cleanup;
mod clip;
mod file;
mod llama;
mod pieces;
mod prompt;
mod sentencepiece;
mod templates;
mod tokenizer_json;

use std::path::PathBuf;

pub use cleanup::Cleanup;
pub use clip::ClipTokenizer;
pub use llama::{LlamaTokenizer, SpecialIds};
pub use pieces::Segment;
pub use prompt::{Prompt, PromptTokens, reply_tokens};
pub use templates::{RELEASE_SYSTEM, parse_templates, release_prompt};

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
    /// A list of prompt templates is malformed.
    #[error("prompt templates, line {line}: {message}")]
    Templates {
        /// Line number, from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
    /// A template does not say where the image and the instruction stand.
    #[error("the prompt has no place for the image: its template {template:?} lacks `[cap]`")]
    NoImage {
        /// The human's turn of the template.
        template: String,
    },
}

/// Whether Python's `str.isspace` holds: Unicode white space and the four ASCII separators.
fn is_python_whitespace(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}
