//! What CLIP's tokenizer does to a text before it cuts it into words.

use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{
    NormalizedString, Normalizer as _, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _,
};

use super::is_python_whitespace;

/// How a text is cleaned up. CLIP was trained with ftfy; transformers falls back to BERT's rules without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cleanup {
    /// As with ftfy installed: typographic quotes, ligatures and full-width forms become plain, characters are
    /// composed (NFC), control characters vanish, runs of white space become one space, letters become small.
    ///
    /// ftfy's repair of wrongly decoded text and of HTML entities is left out: a request holds what its sender
    /// meant.
    #[default]
    Ftfy,
    /// As without: BERT's basic tokenizer, which also strips accents and isolates punctuation and CJK characters.
    Bert,
}

impl Cleanup {
    pub(super) fn apply(self, text: &str) -> Result<String, String> {
        match self {
            Self::Ftfy => Ok(ftfy(text)),
            Self::Bert => bert(text),
        }
    }
}

fn ftfy(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{02bc}' | '\u{2018}'..='\u{201b}' => plain.push('\''),
            '\u{201c}'..='\u{201f}' => plain.push('"'),
            '\u{fb00}' => plain.push_str("ff"),
            '\u{fb01}' => plain.push_str("fi"),
            '\u{fb02}' => plain.push_str("fl"),
            '\u{fb03}' => plain.push_str("ffi"),
            '\u{fb04}' => plain.push_str("ffl"),
            '\u{fb05}' => plain.push_str("\u{17f}t"),
            '\u{fb06}' => plain.push_str("st"),
            '\u{ff01}'..='\u{ff5e}' => {
                plain.extend(char::from_u32(u32::from(c) - 0xff01 + 0x21));
            }
            '\0'..='\u{8}'
            | '\u{b}'
            | '\u{e}'..='\u{1f}'
            | '\u{7f}'
            | '\u{206a}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffc}' => {}
            _ => plain.push(c),
        }
    }
    let mut composed = NormalizedString::from(plain);
    composed.nfc();
    let words = composed.get().split(is_python_whitespace).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ").to_lowercase()
}

fn bert(text: &str) -> Result<String, String> {
    let mut normalized = NormalizedString::from(text);
    BertNormalizer::default().normalize(&mut normalized).map_err(|e| e.to_string())?;
    let mut words = PreTokenizedString::from(normalized);
    BertPreTokenizer.pre_tokenize(&mut words).map_err(|e| e.to_string())?;
    let words = words.get_splits(OffsetReferential::Normalized, OffsetType::None);
    Ok(words.into_iter().map(|(word, _, _)| word).collect::<Vec<_>>().join(" "))
}
