//! Memory for intermediate results that a thread keeps between operations, because fresh memory costs a page fault for
//! every 4 KiB.

use std::cell::RefCell;

/// A thread gives back what exceeds this: 64 MiB.
const KEPT: usize = 1 << 24;

thread_local! {
    /// The last one is the next to be used, so that nested uses find the same memory again.
    static KEEP: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with `length` elements of unspecified values.
pub(super) fn with_scratch<R>(length: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut memory = KEEP.with_borrow_mut(Vec::pop).unwrap_or_default();
    if memory.len() < length {
        memory = vec![0.0; length];
    }
    let result = f(&mut memory[..length]);
    if memory.len() <= KEPT {
        KEEP.with_borrow_mut(|keep| keep.push(memory));
    }
    result
}
