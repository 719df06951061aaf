//! Memory for intermediate results that is kept between operations, because fresh memory costs a page fault for every
//! 4 KiB. It belongs to no thread: there are many, and most are idle.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Longer buffers, of more than 64 MiB, are not kept.
const LONGEST: usize = 1 << 24;

/// The buffers that are not in use: never more than were in use at one time.
static KEPT: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());

/// Calls `f` with `length` elements of unspecified values.
pub(super) fn with_scratch<R>(length: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut memory = take(&mut kept(), length).unwrap_or_default();
    if memory.len() < length {
        memory = vec![0.0; length];
    }
    let result = f(&mut memory[..length]);
    if memory.len() <= LONGEST {
        kept().push(memory);
    }
    result
}

/// Frees all that is not in use.
pub(crate) fn free() {
    drop(std::mem::take(&mut *kept()));
}

/// The shortest buffer that is long enough, or else the longest one.
fn take(kept: &mut Vec<Vec<f32>>, length: usize) -> Option<Vec<f32>> {
    let found = (0..kept.len()).min_by_key(|&index| match kept[index].len() {
        fits if fits >= length => (false, fits),
        short => (true, usize::MAX - short),
    })?;
    Some(kept.swap_remove(found))
}

fn kept() -> MutexGuard<'static, Vec<Vec<f32>>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_that_fits_best_is_taken() {
        let mut kept = vec![vec![0.0; 5], vec![0.0; 30], vec![0.0; 10]];
        let mut length = |at_least| take(&mut kept, at_least).map(|memory| memory.len());
        assert_eq!(length(6), Some(10));
        assert_eq!(length(40), Some(30), "none is long enough");
        assert_eq!((length(5), length(5)), (Some(5), None));
    }

    #[test]
    fn nested_uses_have_memory_of_their_own() {
        with_scratch(8, |outer| {
            outer.fill(1.0);
            with_scratch(8, |inner| inner.fill(2.0));
            assert_eq!(outer, [1.0; 8]);
        });
    }
}
