//! Sentencepiece's precompiled character map.
//!
//! A `u32` that tells the size of a double-array trie in bytes, the trie, and replacements that end in a zero byte. A
//! key's value is the position of its replacement. Everything is little-endian, and nothing in it is trusted.

/// Replaces the longest known sequences of characters, such as `NFKC` decompositions.
pub(super) struct CharsMap {
    trie: Vec<u32>,
    replacements: Vec<u8>,
}

impl CharsMap {
    /// Reads the map; the error says what is wrong with it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let short = || "the character map is cut off".to_owned();
        let (size, rest) = bytes.split_first_chunk::<4>().ok_or_else(short)?;
        let size = u32::from_le_bytes(*size) as usize;
        let (trie, replacements) = rest.split_at_checked(size).ok_or_else(short)?;
        let trie = trie.as_chunks::<4>().0.iter().map(|&unit| u32::from_le_bytes(unit)).collect();
        Ok(Self { trie, replacements: replacements.to_vec() })
    }

    /// The text with every known sequence replaced.
    pub(super) fn apply(&self, text: &str) -> String {
        let mut replaced = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let found = self
                .longest_match(rest.as_bytes())
                .and_then(|(length, position)| Some((rest.get(length..)?, self.replacement(position)?)));
            rest = match found {
                Some((after, replacement)) => {
                    replaced.push_str(replacement);
                    after
                }
                None => {
                    replaced.push(first);
                    rest.get(first.len_utf8()..).unwrap_or_default()
                }
            };
        }
        replaced
    }

    fn replacement(&self, position: usize) -> Option<&str> {
        let bytes = self.replacements.get(position..)?;
        let end = bytes.iter().position(|&byte| byte == 0)?;
        std::str::from_utf8(bytes.get(..end)?).ok()
    }

    /// Length and value of the longest key that `bytes` begin with. A unit holds a label (8 bits), whether a value
    /// follows (bit 8), and the distance to its children (22 bits, in steps of 256 where bit 9 says so).
    fn longest_match(&self, bytes: &[u8]) -> Option<(usize, usize)> {
        let children = |unit: u32| ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize;
        let mut node = children(*self.trie.first()?);
        let mut longest = None;
        for (index, &byte) in bytes.iter().enumerate() {
            node ^= usize::from(byte);
            let Some(&unit) = self.trie.get(node) else { break };
            if byte == 0 || unit & (1 << 31 | 0xff) != u32::from(byte) {
                break;
            }
            node ^= children(unit);
            if unit >> 8 & 1 == 1 {
                let value = self.trie.get(node)? & !(1 << 31);
                longest = Some((index + 1, value as usize));
            }
        }
        longest
    }
}
