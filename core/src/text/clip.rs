//! CLIP's byte-pair tokenizer.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use tokenizers::models::bpe::{BPE, Merges};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;
use tokenizers::{Model as _, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _};

use super::bpe;
use super::file::{file_error, read, read_text};
use super::pieces::{Literal, Piece, cut};
use super::{Cleanup, TextError};

/// CLIP's words: the two control tokens, English clitics, runs of letters, single digits, runs of other signs.
const WORDS: &str =
    r"(?i)<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Control tokens that the pattern keeps whole.
const WHOLE: [&str; 2] = ["<|startoftext|>", "<|endoftext|>"];

/// Merges read at most: CLIP's vocabulary of 49 152 less 256 bytes twice over two and the two control tokens.
const MAX_MERGES: usize = 49_152 - 256 - 2;

/// CLIP's tokenizer, with its vocabulary, control tokens and padding read from files.
pub struct ClipTokenizer {
    bpe: BPE,
    words: Split,
    bytes: ByteLevel,
    literals: Vec<Literal>,
    bos: u32,
    eos: u32,
    pad: u32,
    unk: u32,
    cleanup: Cleanup,
}

/// `special_tokens_map.json`.
#[derive(Deserialize, Default)]
struct SpecialTokens {
    bos_token: Option<SpecialToken>,
    eos_token: Option<SpecialToken>,
    pad_token: Option<SpecialToken>,
    unk_token: Option<SpecialToken>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SpecialToken {
    Text(String),
    Added { content: String },
}

impl SpecialToken {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Added { content: text } => text,
        }
    }
}

impl ClipTokenizer {
    /// Reads `vocab.json`, `merges.txt` and, if there is one, `special_tokens_map.json`.
    pub fn from_directory(directory: &Path) -> Result<Self, TextError> {
        let specials = directory.join("special_tokens_map.json");
        let specials = if specials.exists() {
            serde_json::from_slice(&read(&specials)?).map_err(|e| file_error(&specials, e))?
        } else {
            SpecialTokens::default()
        };
        Self::build(&directory.join("vocab.json"), &directory.join("merges.txt"), &specials)
    }

    /// Reads a vocabulary and its merges; the control tokens are CLIP's.
    pub fn from_files(vocab: &Path, merges: &Path) -> Result<Self, TextError> {
        Self::build(vocab, merges, &SpecialTokens::default())
    }

    fn build(vocab_path: &Path, merges_path: &Path, specials: &SpecialTokens) -> Result<Self, TextError> {
        let vocab: HashMap<String, u32> =
            serde_json::from_slice(&read(vocab_path)?).map_err(|e| file_error(vocab_path, e))?;
        let merges = parse_merges(&read_text(merges_path)?).map_err(|e| file_error(merges_path, e))?;

        let mut literals: Vec<Literal> = Vec::new();
        let mut special = |token: &Option<SpecialToken>, default: &str, is_padding: bool| {
            let text = token.as_ref().map_or(default, SpecialToken::text);
            let id = *vocab
                .get(text)
                .ok_or_else(|| file_error(vocab_path, format!("control token {text:?} is missing")))?;
            if literals.iter().all(|literal| literal.text != text) {
                // transformers makes full tokens of the other three even where the file holds a mere string; a
                // mere string takes the white space around it.
                let strips = is_padding && matches!(token, Some(SpecialToken::Text(_)));
                literals.push(Literal { text: text.to_owned(), id, strips });
            }
            Ok::<_, TextError>((text.to_owned(), id))
        };
        let (_, bos) = special(&specials.bos_token, WHOLE[0], false)?;
        let (_, eos) = special(&specials.eos_token, WHOLE[1], false)?;
        let (unk_text, unk) = special(&specials.unk_token, WHOLE[1], false)?;
        let (_, pad) = special(&specials.pad_token, WHOLE[1], true)?;

        let bpe = bpe::builder(vocab, merges)
            .map_err(|e| file_error(merges_path, e))?
            .unk_token(unk_text)
            .end_of_word_suffix("</w>".to_owned())
            .build()
            .map_err(|e| file_error(merges_path, e))?;
        let words = Split::new(SplitPattern::Regex(WORDS.to_owned()), SplitDelimiterBehavior::Removed, true)
            .map_err(|e| TextError::Encode(e.to_string()))?;
        let bytes = ByteLevel::new(false, false, false);
        Ok(Self { bpe, words, bytes, literals, bos, eos, pad, unk, cleanup: Cleanup::default() })
    }

    /// The same tokenizer with another clean-up of texts.
    #[must_use]
    pub fn with_cleanup(self, cleanup: Cleanup) -> Self {
        Self { cleanup, ..self }
    }

    /// Exactly `length` ids (CLIP's text encoder takes 77): begin, the text cut to what fits, end, padding.
    pub fn encode(&self, text: &str, length: usize) -> Result<Vec<u32>, TextError> {
        let mut ids = vec![self.bos];
        for piece in cut(text, &self.literals, &[]) {
            match piece {
                Piece::Token(id) => ids.push(id),
                Piece::Text(text) => self.encode_piece(text, &mut ids).map_err(TextError::Encode)?,
            }
        }
        ids.truncate(length.saturating_sub(1));
        ids.push(self.eos);
        ids.resize(length, self.pad);
        Ok(ids)
    }

    fn encode_piece(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), String> {
        let mut words = PreTokenizedString::from(self.cleanup.apply(text)?);
        self.words.pre_tokenize(&mut words).map_err(|e| e.to_string())?;
        self.bytes.pre_tokenize(&mut words).map_err(|e| e.to_string())?;
        for (word, _, _) in words.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            if WHOLE.contains(&word) {
                ids.push(self.bpe.token_to_id(word).unwrap_or(self.unk));
            } else {
                let tokens = self.bpe.tokenize(word).map_err(|e| e.to_string())?;
                ids.extend(tokens.into_iter().map(|token| token.id));
            }
        }
        Ok(())
    }
}

/// The merges of a `merges.txt`, whose first line is a heading.
fn parse_merges(text: &str) -> Result<Merges, String> {
    (2..)
        .zip(text.trim().lines().skip(1).take(MAX_MERGES))
        .map(|(line, merge)| {
            let mut parts = merge.split_whitespace();
            match (parts.next(), parts.next(), parts.next()) {
                (Some(left), Some(right), None) => Ok((left.to_owned(), right.to_owned())),
                _ => Err(format!("line {line} is no pair of tokens: {merge:?}")),
            }
        })
        .collect()
}
