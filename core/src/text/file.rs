//! Reading tokenizer files, which are small.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::TextError;

/// Largest tokenizer file that is read, in bytes. LLaMA's and CLIP's have between 0.5 and 2 MB.
pub(super) const MAX_FILE_BYTES: u64 = 64 << 20;

/// Makes an error that names the file.
pub(super) fn file_error(path: &Path, message: impl ToString) -> TextError {
    TextError::Tokenizer { path: path.to_owned(), message: message.to_string() }
}

/// The content of a file of at most [`MAX_FILE_BYTES`].
pub(super) fn read(path: &Path) -> Result<Vec<u8>, TextError> {
    let file = File::open(path).map_err(|e| file_error(path, e))?;
    let mut content = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content).map_err(|e| file_error(path, e))?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(file_error(path, format!("larger than {MAX_FILE_BYTES} bytes")));
    }
    Ok(content)
}

/// The content of a UTF-8 file of at most [`MAX_FILE_BYTES`].
pub(super) fn read_text(path: &Path) -> Result<String, TextError> {
    String::from_utf8(read(path)?).map_err(|e| file_error(path, e))
}
