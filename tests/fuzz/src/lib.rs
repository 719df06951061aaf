//! What reads bytes that others wrote, one function per target: none of them may panic, hang or ask for endless memory,
//! whatever the bytes are.
//!
//! `cargo fuzz` looks for bytes that break this; a test of the main workspace, which includes this file, feeds all of
//! `corpus/` to the same functions.

mod files;
mod model;
mod requests;
mod tokenizers;

pub use self::files::{checkpoint, configuration, pickle, picture};
pub use self::model::model;
pub use self::requests::{request, tensors};
pub use self::tokenizers::{clip_tokenizer, sentencepiece, tokenizer_json};

/// A function that reads bytes.
pub type Target = fn(&[u8]);

/// Every target, by the name of its corpus.
pub const TARGETS: [(&str, Target); 10] = [
    ("checkpoint", checkpoint),
    ("clip_tokenizer", clip_tokenizer),
    ("configuration", configuration),
    ("model", model),
    ("pickle", pickle),
    ("picture", picture),
    ("request", request),
    ("sentencepiece", sentencepiece),
    ("tensors", tensors),
    ("tokenizer_json", tokenizer_json),
];

/// A directory of this thread, with a file of this name and content.
fn with_file<T>(name: &str, content: &[u8], read: impl FnOnce(&std::path::Path) -> T) -> T {
    thread_local! {
        static DIRECTORY: tempfile::TempDir = tempfile::tempdir().expect("there is room for small files");
    }
    DIRECTORY.with(|directory| {
        let path = directory.path().join(name);
        // A new file each time: what was mapped before stays as it was.
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, content).expect("there is room for small files");
        read(&path)
    })
}
