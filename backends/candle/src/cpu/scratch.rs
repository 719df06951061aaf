//! Memory for intermediate results that a thread keeps between operations, because fresh memory costs a page fault for
//! every 4 KiB.

use std::cell::Cell;

/// A thread gives back what exceeds this: 64 MiB.
const KEPT: usize = 1 << 24;

thread_local! {
    static KEEP: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Calls `f` with `length` elements of unspecified values.
pub(super) fn with_scratch<R>(length: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut memory = KEEP.take();
    if memory.len() < length {
        memory.resize(length, 0.0);
    }
    let result = f(&mut memory[..length]);
    if memory.len() <= KEPT {
        KEEP.set(memory);
    }
    result
}
