//! The least recently used goes first.

use lru::LruCache;

use super::Key;

/// Values under keys, as many as a number of bytes allows. Those least recently used give way to new ones.
pub(crate) struct BoundedLru<V> {
    entries: LruCache<Key, Entry<V>>,
    bytes: usize,
    max_bytes: usize,
}

struct Entry<V> {
    value: V,
    bytes: usize,
}

impl<V> BoundedLru<V> {
    /// Nothing yet.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { entries: LruCache::unbounded(), bytes: 0, max_bytes }
    }

    /// The value under a key, which from now on is the one most recently used.
    pub(crate) fn get(&mut self, key: &Key) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// Keeps a value, unless it alone has more bytes than all values may have.
    pub(crate) fn put(&mut self, key: Key, value: V, bytes: usize) {
        if bytes > self.max_bytes {
            return;
        }
        if let Some(replaced) = self.entries.pop(&key) {
            self.bytes -= replaced.bytes;
        }
        while self.bytes + bytes > self.max_bytes {
            let Some((_, evicted)) = self.entries.pop_lru() else { break };
            self.bytes -= evicted.bytes;
        }
        self.bytes += bytes;
        self.entries.put(key, Entry { value, bytes });
    }

    /// Keeps only these.
    pub(crate) fn retain(&mut self, wanted: impl Fn(&V) -> bool) {
        let unwanted = self.entries.iter().filter(|(_, entry)| !wanted(&entry.value)).map(|(key, _)| *key);
        for key in unwanted.collect::<Vec<_>>() {
            self.bytes -= self.entries.pop(&key).map_or(0, |entry| entry.bytes);
        }
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of all values.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::KeyBuilder;
    use super::*;

    fn key(number: u64) -> Key {
        KeyBuilder::new("test").number(number).finish()
    }

    fn kept(lru: &BoundedLru<u64>) -> Vec<u64> {
        (0..9).filter(|number| lru.entries.contains(&key(*number))).collect()
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut lru = BoundedLru::new(30);
        for number in 0..3 {
            lru.put(key(number), number, 10);
        }
        assert_eq!(lru.get(&key(0)), Some(&0));
        lru.put(key(3), 3, 15);
        assert_eq!(kept(&lru), [0, 3]);
    }

    #[test]
    fn what_is_not_wanted_any_more_makes_room() {
        let mut lru = BoundedLru::new(30);
        for number in 0..3 {
            lru.put(key(number), number, 10);
        }
        lru.retain(|number| *number == 1);
        assert_eq!((kept(&lru), lru.bytes()), (vec![1], 10));
    }

    #[test]
    fn what_is_too_large_is_not_kept_and_displaces_nothing() {
        let mut lru = BoundedLru::new(30);
        lru.put(key(0), 0, 30);
        lru.put(key(1), 1, 31);
        assert_eq!(kept(&lru), [0]);
    }

    proptest! {
        #[test]
        fn the_bound_holds(puts in proptest::collection::vec((0u64..20, 0usize..50), 0..100)) {
            let mut lru = BoundedLru::new(100);
            let mut sizes = std::collections::BTreeMap::new();
            for (number, bytes) in puts {
                lru.put(key(number), number, bytes);
                sizes.insert(number, bytes);
                let kept = sizes.iter().filter(|(number, _)| lru.entries.contains(&key(**number)));
                prop_assert_eq!(lru.bytes(), kept.map(|(_, bytes)| bytes).sum::<usize>());
                prop_assert!(lru.bytes() <= 100);
                prop_assert_eq!(lru.get(&key(number)), Some(&number));
            }
        }
    }
}
