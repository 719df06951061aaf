//! Byte-pair models from vocabularies that are not trusted.

use std::collections::HashMap;

use tokenizers::models::bpe::{BPE, BpeBuilder, Merges, Vocab};

/// A builder of a model whose merges are all of its vocabulary, without a cache of what users wrote. The crate itself
/// panics on a merge that makes a longer token than the vocabulary's longest.
pub(super) fn builder(vocab: HashMap<String, u32>, merges: Merges) -> Result<BpeBuilder, String> {
    let unknown = merges.iter().find_map(|(left, right)| {
        let merged = format!("{left}{right}");
        [left, right, &merged].into_iter().find(|token| !vocab.contains_key(*token)).cloned()
    });
    match unknown {
        Some(token) => Err(format!("a merge has to do with {token:?}, which is not in the vocabulary")),
        None => Ok(BPE::builder()
            .vocab_and_merges(vocab.into_iter().collect::<Vocab>(), merges)
            .cache_capacity(0)),
    }
}
