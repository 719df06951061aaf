//! LLaMA's tokenizer with SmartEdit's added tokens.

use std::ops::RangeInclusive;
use std::path::Path;

use tokenizers::Model as _;
use tokenizers::models::bpe::BPE;

use super::file::{file_error, read};
use super::pieces::{Literal, Piece, Segment, cut, join};
use super::sentencepiece::{self, Normalizer, SPACE};
use super::{TextError, tokenizer_json};
use crate::model::IMAGE_TOKENS;

/// Ids of the tokens that have a meaning of their own. They depend on the size of the base vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialIds {
    /// `<unk>`, also the padding.
    pub unk: u32,
    /// `<s>`, in front of every text.
    pub bos: u32,
    /// `</s>`, at the end of a reply.
    pub eos: u32,
    /// `<img>`, the word for an image in the system text.
    pub image: u32,
    /// `<im_start>`, before the image.
    pub image_start: u32,
    /// `<im_end>`, after the image.
    pub image_end: u32,
    /// `<img_0>`.
    pub first_image_token: u32,
    /// `<img_31>`.
    pub last_image_token: u32,
}

impl SpecialIds {
    /// The ids of `<img_0>` … `<img_31>`.
    pub fn image_tokens(&self) -> RangeInclusive<u32> {
        self.first_image_token..=self.last_image_token
    }

    /// Whether the id is one of `<img_0>` … `<img_31>`.
    pub fn is_image_token(&self, id: u32) -> bool {
        self.image_tokens().contains(&id)
    }
}

/// LLaMA's tokenizer with the 35 tokens `<img>`, `<im_start>`, `<im_end>`, `<img_0>` … `<img_31>` added.
///
/// A text is first cut at the literal control tokens; an added token takes the white space on both of its sides
/// with it. Every piece between them is tokenized by itself, with a space of its own in front. The beginning-of-text
/// token comes first, no end-of-text token last.
pub struct LlamaTokenizer {
    bpe: BPE,
    normalizer: Normalizer,
    literals: Vec<Literal>,
    special: SpecialIds,
    vocab_size: usize,
}

/// What a tokenizer file holds, whichever its format.
pub(super) struct Base {
    pub(super) bpe: BPE,
    pub(super) normalizer: Normalizer,
    /// Number of tokens; their ids are smaller.
    pub(super) size: usize,
    pub(super) unk: (String, u32),
    pub(super) bos: (String, u32),
    pub(super) eos: (String, u32),
}

impl LlamaTokenizer {
    /// Reads `tokenizer.model` (sentencepiece) or, if the name ends in `.json`, `tokenizer.json`.
    pub fn from_file(path: &Path) -> Result<Self, TextError> {
        let content = read(path)?;
        let base = if path.extension().is_some_and(|extension| extension == "json") {
            tokenizer_json::parse(&content)
        } else {
            sentencepiece::parse(&content)
        };
        base.and_then(Self::with_added_tokens).map_err(|message| file_error(path, message))
    }

    fn with_added_tokens(base: Base) -> Result<Self, String> {
        let mut literals: Vec<Literal> = [&base.unk, &base.bos, &base.eos]
            .map(|(text, id)| Literal { text: text.clone(), id: *id, strips: false })
            .into();
        let first = u32::try_from(base.size).map_err(|e| e.to_string())?;
        let added = ["<img>", "<im_start>", "<im_end>"]
            .map(str::to_owned)
            .into_iter()
            .chain((0..IMAGE_TOKENS).map(|index| format!("<img_{index}>")));
        literals.extend(added.zip(first..).map(|(text, id)| Literal { text, id, strips: true }));
        let id = |offset| first.checked_add(offset).ok_or("the vocabulary is too large".to_owned());
        Ok(Self {
            special: SpecialIds {
                unk: base.unk.1,
                bos: base.bos.1,
                eos: base.eos.1,
                image: id(0)?,
                image_start: id(1)?,
                image_end: id(2)?,
                first_image_token: id(3)?,
                last_image_token: id(2 + IMAGE_TOKENS as u32)?,
            },
            vocab_size: base.size + 3 + IMAGE_TOKENS,
            bpe: base.bpe,
            normalizer: base.normalizer,
            literals,
        })
    }

    /// Ids of the tokens that have a meaning of their own.
    pub fn special(&self) -> &SpecialIds {
        &self.special
    }

    /// Number of tokens, the added ones included.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The ids of a prompt given by its parts, as if they were one text in which the control tokens that the
    /// user wrote have no meaning.
    pub fn encode(&self, segments: &[Segment<'_>]) -> Result<Vec<u32>, TextError> {
        let (text, user) = join(segments);
        let mut ids = vec![self.special.bos];
        for piece in cut(&text, &self.literals, &user) {
            match piece {
                Piece::Token(id) => ids.push(id),
                Piece::Text(text) => self.encode_piece(text, &mut ids).map_err(TextError::Encode)?,
            }
        }
        Ok(ids)
    }

    /// The ids of a text in which every control token acts as such, as in the reference.
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>, TextError> {
        self.encode(&[Segment::Template(text)])
    }

    fn encode_piece(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), String> {
        let tokens = self.bpe.tokenize(&self.normalizer.apply(text)).map_err(|e| e.to_string())?;
        ids.extend(tokens.into_iter().map(|token| token.id));
        Ok(())
    }

    /// The text of ids, for people: image tokens and control tokens are left out, bytes that are no UTF-8 become
    /// U+FFFD, and there is no white space at either end.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut bytes = Vec::new();
        for &id in ids {
            let special = [self.special.unk, self.special.bos, self.special.eos];
            if special.contains(&id) {
                continue;
            }
            let Some(piece) = self.bpe.id_to_token(id) else { continue };
            match byte_piece(&piece) {
                Some(byte) => bytes.push(byte),
                None => bytes.extend_from_slice(piece.replace(SPACE, " ").as_bytes()),
            }
        }
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}

/// The byte that a piece such as `<0x0A>` stands for.
fn byte_piece(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}
