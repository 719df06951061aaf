//! `tokenizer.model`: sentencepiece's file format, and its BPE as vocabulary and ranked merges.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use prost::Message;
use tokenizers::models::bpe::Merges;

use super::bpe;
use super::charsmap::CharsMap;
use super::llama::Base;

/// Sentencepiece's mark of a space.
pub(super) const SPACE: char = '\u{2581}';

/// Longest piece accepted, in characters; sentencepiece's own trainer makes 16 at most by default.
const MAX_PIECE_CHARS: usize = 256;

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<PieceProto>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<TrainerProto>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<NormalizerProto>,
}

#[derive(Clone, PartialEq, Message)]
struct PieceProto {
    #[prost(string, optional, tag = "1")]
    piece: Option<String>,
    #[prost(float, optional, tag = "2")]
    score: Option<f32>,
    #[prost(enumeration = "PieceKind", optional, tag = "3", default = "Normal")]
    kind: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum PieceKind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

#[derive(Clone, PartialEq, Message)]
struct TrainerProto {
    #[prost(int32, optional, tag = "3", default = "1")]
    model_kind: Option<i32>,
    #[prost(bool, optional, tag = "24")]
    whitespace_as_suffix: Option<bool>,
    #[prost(bool, optional, tag = "35")]
    byte_fallback: Option<bool>,
    #[prost(string, optional, tag = "45", default = "<unk>")]
    unk: Option<String>,
    #[prost(string, optional, tag = "46", default = "<s>")]
    bos: Option<String>,
    #[prost(string, optional, tag = "47", default = "</s>")]
    eos: Option<String>,
}

/// `TrainerSpec.ModelType.BPE`.
const MODEL_KIND_BPE: i32 = 2;

#[derive(Clone, PartialEq, Message)]
struct NormalizerProto {
    #[prost(bytes = "vec", optional, tag = "2")]
    precompiled_charsmap: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "3", default = "true")]
    add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4", default = "true")]
    remove_extra_whitespaces: Option<bool>,
    #[prost(bool, optional, tag = "5", default = "true")]
    escape_whitespaces: Option<bool>,
}

/// Reads the content of a `tokenizer.model`; the error says what is wrong with it.
pub(super) fn parse(content: &[u8]) -> Result<Base, String> {
    let model = ModelProto::decode(content)
        .map_err(|e| format!("not a sentencepiece model, or a damaged one: {e}"))?;
    let trainer = model.trainer.unwrap_or_default();
    if trainer.model_kind() != MODEL_KIND_BPE {
        return Err(format!("model type {} instead of BPE ({MODEL_KIND_BPE})", trainer.model_kind()));
    }
    if trainer.whitespace_as_suffix() {
        return Err("white space as suffix is not supported".to_owned());
    }
    let mut vocab = HashMap::new();
    let mut normal = Vec::new();
    for (index, piece) in model.pieces.iter().enumerate() {
        let id = u32::try_from(index).map_err(|e| e.to_string())?;
        let text = piece.piece();
        if text.is_empty() || text.chars().count() > MAX_PIECE_CHARS {
            return Err(format!("piece {id} is empty or longer than {MAX_PIECE_CHARS} characters"));
        }
        match piece.kind() {
            PieceKind::Normal if piece.score().is_nan() => {
                return Err(format!("piece {id} has a score that is not a number"));
            }
            PieceKind::Normal => normal.push((text, piece.score())),
            PieceKind::Unknown | PieceKind::Control | PieceKind::Byte => {}
            kind => return Err(format!("piece {id} is of the unsupported type {kind:?}")),
        }
        if vocab.insert(text.to_owned(), id).is_some() {
            return Err(format!("piece {id} occurs twice: {text:?}"));
        }
    }
    let special = |name: &str| match vocab.get(name) {
        Some(&id) => Ok((name.to_owned(), id)),
        None => Err(format!("piece {name:?} is missing")),
    };
    let (unk, bos, eos) = (special(trainer.unk())?, special(trainer.bos())?, special(trainer.eos())?);
    let size = vocab.len();
    let bpe = bpe::builder(vocab, merges(&normal))?
        .unk_token(unk.0.clone())
        .fuse_unk(true)
        .byte_fallback(trainer.byte_fallback())
        .build()
        .map_err(|e| e.to_string())?;
    let normalizer = Normalizer::new(&model.normalizer.unwrap_or_default())?;
    Ok(Base { bpe, normalizer, size, unk, bos, eos })
}

/// The merges of a sentencepiece BPE, best first: whatever two pieces make a third, in the order of its score.
fn merges(pieces: &[(&str, f32)]) -> Merges {
    let known: HashSet<&str> = pieces.iter().map(|(text, _)| *text).collect();
    let mut merges = Vec::new();
    for &(text, score) in pieces {
        for (split, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(split);
            if known.contains(left) && known.contains(right) {
                merges.push((score, left, right));
            }
        }
    }
    merges.sort_by(|a, b| b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal));
    merges.into_iter().map(|(_, left, right)| (left.to_owned(), right.to_owned())).collect()
}

/// What sentencepiece does to a text before it is cut into pieces.
pub(super) struct Normalizer {
    charsmap: Option<CharsMap>,
    dummy_prefix: bool,
    collapse_spaces: bool,
    escape_spaces: bool,
}

impl Default for Normalizer {
    /// LLaMA's: a space in front, spaces made visible, nothing else.
    fn default() -> Self {
        Self { charsmap: None, dummy_prefix: true, collapse_spaces: false, escape_spaces: true }
    }
}

impl Normalizer {
    fn new(proto: &NormalizerProto) -> Result<Self, String> {
        let charsmap = match proto.precompiled_charsmap() {
            [] => None,
            map => Some(CharsMap::parse(map)?),
        };
        Ok(Self {
            charsmap,
            dummy_prefix: proto.add_dummy_prefix(),
            collapse_spaces: proto.remove_extra_whitespaces(),
            escape_spaces: proto.escape_whitespaces(),
        })
    }

    /// The text as the BPE takes it.
    pub(super) fn apply(&self, text: &str) -> String {
        let mut text = match &self.charsmap {
            None => text.to_owned(),
            Some(charsmap) => charsmap.apply(text),
        };
        if self.collapse_spaces {
            text = text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        }
        if self.dummy_prefix && !text.is_empty() {
            text.insert(0, ' ');
        }
        if self.escape_spaces { text.replace(' ', SPACE.encode_utf8(&mut [0; 4])) } else { text }
    }
}
