//! Tokenizers' files, and texts in the tokenizers that come of them.

use smartedit_core::text::{Cleanup, ClipTokenizer, LlamaTokenizer};

use super::with_file;

/// What users may write.
const TEXTS: [&str; 4] = [
    "Change the left cat to a fox",
    "",
    "<s> <img_0>\u{2581}\u{2581} İ ﬃ\u{301} 👩‍👩‍👧 \0\u{feff}\t\n",
    "漢字 1234567890 it's <|endoftext|> <unk> \u{10ffff}",
];

/// CLIP's `vocab.json`, and after a zero byte its `merges.txt`.
pub fn clip_tokenizer(content: &[u8]) {
    let (vocab, merges) = match content.iter().position(|byte| *byte == 0) {
        Some(end) => (&content[..end], &content[end + 1..]),
        None => (content, &[][..]),
    };
    with_file("vocab.json", vocab, |vocab| {
        with_file("merges.txt", merges, |merges| {
            for cleanup in [Cleanup::Ftfy, Cleanup::Bert] {
                let Ok(tokenizer) = ClipTokenizer::from_files(vocab, merges) else { return };
                let tokenizer = tokenizer.with_cleanup(cleanup);
                for text in TEXTS {
                    if let Ok(ids) = tokenizer.encode(text, 77) {
                        assert_eq!(ids.len(), 77);
                    }
                }
            }
        });
    });
}

/// LLaMA's `tokenizer.model`.
pub fn sentencepiece(content: &[u8]) {
    with_file("tokenizer.model", content, llama);
}

/// LLaMA's `tokenizer.json`.
pub fn tokenizer_json(content: &[u8]) {
    with_file("tokenizer.json", content, llama);
}

fn llama(path: &std::path::Path) {
    let Ok(tokenizer) = LlamaTokenizer::from_file(path) else { return };
    for text in TEXTS {
        if let Ok(ids) = tokenizer.encode_text(text) {
            assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
            tokenizer.decode(&ids);
        }
    }
}
