//! Results of stages, shared by all edits of a process.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{BoundedLru, Key};
use crate::tensor::Tensors;

/// How long a lookup waits for somebody else's result before it says that there is none yet.
const PATIENCE: Duration = Duration::from_millis(50);

/// Results of stages, within a number of bytes. Shared by any number of models and edits.
pub struct StageCache {
    state: Mutex<State>,
    settled: Condvar,
}

struct State {
    results: BoundedLru<Arc<Tensors>>,
    /// What somebody has claimed and is computing.
    running: HashSet<Key>,
    hits: u64,
    misses: u64,
}

/// What there is under a key.
pub enum Lookup {
    /// The result.
    Kept(Arc<Tensors>),
    /// Nothing, and nobody is at it: the caller computes the result.
    Missing(Claim),
    /// Nothing yet; somebody is computing it. Look again.
    Running,
}

/// The right to compute a result while others wait for it. Dropped without a result, it goes to one of them.
pub struct Claim {
    cache: Arc<StageCache>,
    key: Key,
}

/// How much a cache holds and how often it could help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Results kept.
    pub entries: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Lookups that found a result.
    pub hits: u64,
    /// Lookups after which the result was computed.
    pub misses: u64,
}

impl StageCache {
    /// Keeps results of so many bytes at most.
    pub fn new(max_bytes: usize) -> Arc<Self> {
        let results = BoundedLru::new(max_bytes);
        let state = State { results, running: HashSet::new(), hits: 0, misses: 0 };
        Arc::new(Self { state: Mutex::new(state), settled: Condvar::new() })
    }

    /// What there is under a key. Where somebody is computing it, waits for a moment.
    pub fn lookup(self: &Arc<Self>, key: Key) -> Lookup {
        let waited =
            self.settled.wait_timeout_while(self.lock(), PATIENCE, |state| state.running.contains(&key));
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.running.contains(&key) {
            return Lookup::Running;
        }
        if let Some(result) = state.results.get(&key).cloned() {
            state.hits += 1;
            return Lookup::Kept(result);
        }
        state.misses += 1;
        state.running.insert(key);
        Lookup::Missing(Claim { cache: self.clone(), key })
    }

    /// How much it holds and how often it could help.
    pub fn usage(&self) -> Usage {
        let state = self.lock();
        Usage {
            entries: state.results.len(),
            bytes: state.results.bytes(),
            hits: state.hits,
            misses: state.misses,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// Hands the result to all who need it.
    pub fn keep(self, result: Tensors) {
        let bytes = bytes(&result);
        self.cache.lock().results.put(self.key, Arc::new(result), bytes);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.cache.lock().running.remove(&self.key);
        self.cache.settled.notify_all();
    }
}

/// Bytes of a result, with an allowance for what surrounds it.
fn bytes(tensors: &Tensors) -> usize {
    let of_one = |(name, tensor): (&str, &crate::tensor::HostTensor)| {
        let element = if tensor.dtype() == "i64" { 8 } else { 4 };
        128 + name.len() + element * tensor.shape().iter().product::<usize>()
    };
    128 + tensors.iter().map(of_one).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use ndarray::Array1;

    use super::super::KeyBuilder;
    use super::*;

    fn key(number: u64) -> Key {
        KeyBuilder::new("test").number(number).finish()
    }

    fn result(value: f32) -> Tensors {
        Tensors::new().with("x", Array1::from_elem(256, value))
    }

    fn claim(cache: &Arc<StageCache>, number: u64) -> Claim {
        match cache.lookup(key(number)) {
            Lookup::Missing(claim) => claim,
            Lookup::Kept(_) => panic!("{number} is kept"),
            Lookup::Running => panic!("{number} is claimed"),
        }
    }

    #[test]
    fn what_is_kept_is_found_under_its_key_alone() {
        let cache = StageCache::new(1 << 20);
        claim(&cache, 1).keep(result(1.0));
        assert!(matches!(cache.lookup(key(1)), Lookup::Kept(found) if *found == result(1.0)));
        drop(claim(&cache, 2));
        let usage = cache.usage();
        assert_eq!((usage.entries, usage.hits, usage.misses), (1, 1, 2));
    }

    #[test]
    fn a_claim_that_is_dropped_leaves_nothing() {
        let cache = StageCache::new(1 << 20);
        drop(claim(&cache, 1));
        assert_eq!(cache.usage().entries, 0);
        claim(&cache, 1).keep(result(1.0));
        assert_eq!(cache.usage().entries, 1);
    }

    #[test]
    fn while_one_computes_others_are_told_to_wait() {
        let cache = StageCache::new(1 << 20);
        let first = claim(&cache, 1);
        assert!(matches!(cache.lookup(key(1)), Lookup::Running));
        drop(first);
        drop(claim(&cache, 1));
    }

    #[test]
    fn the_bound_holds() {
        let cache = StageCache::new(3000);
        for number in 0..9 {
            claim(&cache, number).keep(result(number as f32));
            assert!(cache.usage().bytes <= 3000);
        }
        assert_eq!(cache.usage().entries, 2, "a result has a little over 1024 bytes");
    }

    #[test]
    fn of_many_who_need_a_result_one_computes_it_though_the_first_fails() {
        let cache = StageCache::new(1 << 20);
        let (start, computed) = (Barrier::new(8), AtomicUsize::new(0));
        let first = claim(&cache, 1);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    start.wait();
                    let found = loop {
                        match cache.lookup(key(1)) {
                            Lookup::Kept(found) => break found,
                            Lookup::Running => {}
                            Lookup::Missing(claim) => {
                                computed.fetch_add(1, Ordering::SeqCst);
                                claim.keep(result(1.0));
                            }
                        }
                    };
                    assert_eq!(*found, result(1.0));
                });
            }
            drop(first);
        });
        assert_eq!(computed.load(Ordering::SeqCst), 1);
    }
}
