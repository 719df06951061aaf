//! Tokenizers whose words are the world's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};
use tokenizers::Model as _;
use tokenizers::models::bpe::{BPE, BpeTrainer};

/// What stands for a space in LLaMA's tokens.
const SPACE: char = '\u{2581}';
/// What ends a word among CLIP's tokens.
const END_OF_WORD: &str = "</w>";
/// More tokens than any of these vocabularies has: every word becomes one token.
const MAX_TOKENS: usize = 1 << 16;

/// The files of a LLaMA tokenizer and a CLIP tokenizer for the given texts, by their names: `tokenizer.json`,
/// `clip_tokenizer/vocab.json` and so on. Each word of the texts is one token; others are spelled out, down to
/// bytes, so that no text is beyond them.
///
/// # Errors
/// Training fails; this would be a defect of the tokenizer library.
pub fn tokenizer_files(texts: impl IntoIterator<Item = String>) -> Result<BTreeMap<String, String>> {
    let mut words = BTreeMap::new();
    for text in texts {
        for word in split(&text) {
            *words.entry(word).or_insert(0u64) += 1;
        }
    }
    let mut files = BTreeMap::from([("tokenizer.json".to_owned(), llama(&words)?)]);
    files.extend(clip(&words)?);
    Ok(files)
}

/// Words and single signs; a word that follows a space keeps it.
fn split(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut space = true;
    for character in text.chars() {
        let letter = character.is_alphanumeric();
        match words.last_mut() {
            Some(word) if letter && !space && word.ends_with(char::is_alphanumeric) => word.push(character),
            _ if character == ' ' => {}
            _ => words.push(if space { format!("{SPACE}{character}") } else { character.to_string() }),
        }
        space = character == ' ';
    }
    words
}

fn train(
    words: &BTreeMap<String, u64>,
    suffix: Option<&str>,
    alphabet: impl IntoIterator<Item = char>,
) -> Result<BPE> {
    let mut builder = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(MAX_TOKENS)
        .initial_alphabet(alphabet.into_iter().collect());
    if let Some(suffix) = suffix {
        builder = builder.end_of_word_suffix(suffix.to_owned());
    }
    let counts = words.iter().map(|(word, count)| (word.as_str().into(), *count)).collect();
    let mut model = BPE::default();
    builder.build().do_train(&counts, &mut model).map_err(|e| anyhow!("{e}"))?;
    Ok(model)
}

/// Tokens in the order of their ids and the merges that make them.
fn parts(model: &BPE) -> Result<(Vec<String>, Vec<String>)> {
    let directory = tempfile::tempdir()?;
    model.save(directory.path(), None).map_err(|e| anyhow!("{e}"))?;
    let read = |name: &str| {
        let path = directory.path().join(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let vocabulary: HashMap<String, u32> = serde_json::from_str(&read("vocab.json")?)?;
    let mut tokens: Vec<(u32, String)> = vocabulary.into_iter().map(|(token, id)| (id, token)).collect();
    tokens.sort();
    let merges = read("merges.txt")?.lines().skip(1).map(str::to_owned).collect();
    Ok((tokens.into_iter().map(|(_, token)| token).collect(), merges))
}

/// `tokenizer.json` as LLaMA's: control tokens, bytes, then pieces.
fn llama(words: &BTreeMap<String, u64>) -> Result<String> {
    let signs: BTreeSet<char> =
        words.keys().flat_map(|word| word.chars()).chain((' '..='~').filter(|c| *c != ' ')).collect();
    let (pieces, merges) = parts(&train(words, None, signs)?)?;
    let control = ["<unk>", "<s>", "</s>"].map(str::to_owned);
    let bytes = (0..=255u8).map(|byte| format!("<0x{byte:02X}>"));
    let vocabulary: serde_json::Map<String, Value> = control
        .into_iter()
        .chain(bytes)
        .chain(pieces)
        .zip(0u32..)
        .map(|(token, id)| (token, id.into()))
        .collect();
    let space = SPACE.to_string();
    let file = json!({
        "version": "1.0",
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": space},
            {"type": "Replace", "pattern": {"String": " "}, "content": space},
        ]},
        "pre_tokenizer": null,
        "model": {
            "type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
            "vocab": vocabulary, "merges": merges,
        },
    });
    Ok(format!("{file}\n"))
}

/// `vocab.json` and `merges.txt` as CLIP's, of words in lower case, with every byte as a token.
fn clip(words: &BTreeMap<String, u64>) -> Result<[(String, String); 3]> {
    let mut lower = BTreeMap::new();
    for (word, count) in words {
        *lower.entry(word.trim_start_matches(SPACE).to_lowercase()).or_insert(0) += count;
    }
    lower.remove("");
    let bytes: BTreeSet<char> = byte_characters().collect();
    // Seen once alone, every byte is a token in the middle of a word and at its end.
    let mut with_bytes = lower.clone();
    for byte in &bytes {
        *with_bytes.entry(byte.to_string()).or_insert(0) += 1;
    }
    let (tokens, merges) = parts(&train(&with_bytes, Some(END_OF_WORD), bytes)?)?;
    let control = ["<|startoftext|>", "<|endoftext|>"].map(str::to_owned);
    let vocabulary: serde_json::Map<String, Value> =
        tokens.into_iter().chain(control).zip(0u32..).map(|(token, id)| (token, id.into())).collect();
    let special = json!({
        "bos_token": {"content": "<|startoftext|>"},
        "eos_token": {"content": "<|endoftext|>"},
        "unk_token": {"content": "<|endoftext|>"},
        "pad_token": "<|endoftext|>",
    });
    let file = |name: &str| format!("clip_tokenizer/{name}");
    Ok([
        (file("vocab.json"), format!("{}\n", Value::from(vocabulary))),
        (file("merges.txt"), format!("#version: 0.2\n{}\n", merges.join("\n"))),
        (file("special_tokens_map.json"), format!("{special}\n")),
    ])
}

/// The characters that stand for the 256 bytes in byte-level vocabularies (GPT-2): printable Latin-1 for itself, the
/// others from U+0100 on.
fn byte_characters() -> impl Iterator<Item = char> {
    let printable = |byte: &u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let others = (0..256u32).filter(move |byte| !printable(byte)).count() as u32;
    (0..256u32).filter(printable).chain(256..256 + others).filter_map(char::from_u32)
}

/// The files that [`tokenizer_files`] gives.
const FILES: [&str; 4] = [
    "tokenizer.json",
    "clip_tokenizer/vocab.json",
    "clip_tokenizer/merges.txt",
    "clip_tokenizer/special_tokens_map.json",
];

/// The files below a directory, if they are all there.
///
/// # Errors
/// A file is there and cannot be read.
pub fn read(directory: &Path) -> Result<Option<BTreeMap<String, String>>> {
    if FILES.iter().any(|name| !directory.join(name).exists()) {
        return Ok(None);
    }
    let read = |name: &&str| {
        let path = directory.join(name);
        let content =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(((*name).to_owned(), content))
    };
    FILES.iter().map(read).collect::<Result<_>>().map(Some)
}

/// Writes the files below a directory.
///
/// # Errors
/// A file cannot be written.
pub fn write(files: &BTreeMap<String, String>, directory: &Path) -> Result<()> {
    for (name, content) in files {
        let path = directory.join(name);
        crate::parameters::write_whole(&path, |partial| Ok(std::fs::write(partial, content)?))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use smartedit_core::text::{ClipTokenizer, LlamaTokenizer};

    use super::*;

    #[test]
    fn every_word_of_the_texts_is_one_token_and_every_other_text_can_be_spelled() {
        let text = "Change the left cat to a fox.";
        let directory = tempfile::tempdir().unwrap();
        let files = tokenizer_files([text.to_owned(), "a \"fox\"".to_owned()]).unwrap();
        write(&files, directory.path()).unwrap();
        let llama = LlamaTokenizer::from_file(&directory.path().join("tokenizer.json")).unwrap();
        assert_eq!(llama.encode_text(text).unwrap().len(), 1 + 8);
        let odd = llama.encode_text("Zebra übt 猫!").unwrap();
        assert!(odd.iter().all(|id| *id != llama.special().unk), "{odd:?}");
        assert_eq!(llama.decode(&odd), "Zebra übt 猫!");
        let clip = ClipTokenizer::from_directory(&directory.path().join("clip_tokenizer")).unwrap();
        let ids = clip.encode(text, 32).unwrap();
        let end = *ids.last().unwrap();
        assert_eq!(ids.iter().position(|id| *id == end), Some(1 + 8), "{ids:?}");
        let odd = clip.encode("zebra übt 猫!", 64).unwrap();
        assert_eq!(odd.iter().filter(|id| **id != end).count(), 1 + 5 + 4 + 3 + 1, "{odd:?}");
    }
}
