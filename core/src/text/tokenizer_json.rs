//! `tokenizer.json`, as far as LLaMA's goes.

use std::collections::HashMap;

use serde::Deserialize;
use tokenizers::models::bpe::Merges;

use super::bpe;
use super::llama::Base;
use super::sentencepiece::{Normalizer, SPACE};

#[derive(Deserialize)]
struct File {
    normalizer: Option<NormalizerJson>,
    pre_tokenizer: Option<PreTokenizerJson>,
    model: ModelJson,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum NormalizerJson {
    Sequence {
        normalizers: Vec<NormalizerJson>,
    },
    Prepend {
        prepend: String,
    },
    Replace {
        pattern: PatternJson,
        content: String,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
enum PatternJson {
    String(String),
    Regex(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum PreTokenizerJson {
    Metaspace {
        #[serde(default)]
        split: bool,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum ModelJson {
    #[serde(rename = "BPE")]
    Bpe {
        vocab: HashMap<String, u32>,
        merges: Vec<MergeJson>,
        #[serde(default)]
        byte_fallback: bool,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum MergeJson {
    Pair(String, String),
    Joined(String),
}

/// Reads the content of a `tokenizer.json`; the error says what is wrong with it.
pub(super) fn parse(content: &[u8]) -> Result<Base, String> {
    let file: File = serde_json::from_slice(content)
        .map_err(|e| format!("not a tokenizer.json, or a damaged one: {e}"))?;
    if !is_llama(file.normalizer.as_ref(), file.pre_tokenizer.as_ref()) {
        return Err("it does not treat spaces as LLaMA's does".to_owned());
    }
    let ModelJson::Bpe { vocab, merges, byte_fallback } = file.model else {
        return Err("its model is not BPE".to_owned());
    };
    let size = vocab.len();
    if let Some((token, id)) = vocab.iter().find(|&(_, &id)| id as usize >= size) {
        return Err(format!("token {token:?} has id {id}, but there are only {size} tokens"));
    }
    let special = |name: &str| match vocab.get(name) {
        Some(&id) => Ok((name.to_owned(), id)),
        None => Err(format!("token {name:?} is missing")),
    };
    let (unk, bos, eos) = (special("<unk>")?, special("<s>")?, special("</s>")?);
    let merges: Merges = merges.into_iter().map(MergeJson::pair).collect::<Result<_, _>>()?;
    let bpe = bpe::builder(vocab, merges)?
        .unk_token(unk.0.clone())
        .fuse_unk(true)
        .byte_fallback(byte_fallback)
        .build()
        .map_err(|e| e.to_string())?;
    Ok(Base { bpe, normalizer: Normalizer::default(), size, unk, bos, eos })
}

impl MergeJson {
    fn pair(self) -> Result<(String, String), String> {
        match self {
            Self::Pair(left, right) => Ok((left, right)),
            Self::Joined(pair) => match pair.split_once(' ') {
                Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
                None => Err(format!("merge {pair:?} is no pair of tokens")),
            },
        }
    }
}

/// Whether a text gets a space in front and its spaces made visible, and is cut into no words: by a normalizer, or in
/// newer files by a pre-tokenizer.
fn is_llama(normalizer: Option<&NormalizerJson>, pre_tokenizer: Option<&PreTokenizerJson>) -> bool {
    match (normalizer, pre_tokenizer) {
        (Some(NormalizerJson::Sequence { normalizers }), None) => match normalizers.as_slice() {
            [
                NormalizerJson::Prepend { prepend },
                NormalizerJson::Replace { pattern: PatternJson::String(pattern), content },
            ] => pattern == " " && [prepend, content].iter().all(|text| text.chars().eq([SPACE])),
            _ => false,
        },
        (None, Some(PreTokenizerJson::Metaspace { split })) => !split,
        _ => false,
    }
}
