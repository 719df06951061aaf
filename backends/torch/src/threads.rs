//! How many threads libtorch computes with.
//!
//! Under OpenMP the number belongs to the thread that calls. A worker may run stages with different numbers, so every
//! operation makes sure of its own.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::sync::OnceLock;

/// More threads than this are refused: libgomp ends the process when it cannot start one.
pub(crate) const MAX: usize = 1024;

thread_local! {
    /// The number last set on this thread.
    static CURRENT: Cell<Option<i32>> = const { Cell::new(None) };
}

/// Makes the calling thread compute with `threads`, or with as many as libtorch takes by itself: all cores, or what
/// `OMP_NUM_THREADS` says.
pub(crate) fn apply(threads: Option<NonZeroUsize>) {
    /// Read before this crate changes it on any thread.
    static BY_ITSELF: OnceLock<i32> = OnceLock::new();
    let by_itself = *BY_ITSELF.get_or_init(tch::get_num_threads);
    let wanted = threads.map_or(by_itself, |threads| threads.get().min(MAX) as i32);
    if CURRENT.get() != Some(wanted) {
        tch::set_num_threads(wanted);
        CURRENT.set(Some(wanted));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_computes_with_the_number_last_asked_for() {
        let by_itself = tch::get_num_threads();
        for threads in [NonZeroUsize::new(3), NonZeroUsize::new(1), None, NonZeroUsize::new(2)] {
            apply(threads);
            assert_eq!(tch::get_num_threads(), threads.map_or(by_itself, |threads| threads.get() as i32));
        }
    }
}
