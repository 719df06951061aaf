//! How large the parts of an operation are that threads share.

/// Elements that one task computes: to wake a thread takes as long.
pub(super) const ELEMENTS: usize = 1 << 14;

/// Of items of so many elements, those that one task computes at least.
pub(super) fn items(elements: usize) -> usize {
    ELEMENTS.div_ceil(elements.max(1))
}
