//! On whose account an edit is made, where a request says it.

/// Characters of a caller's name.
pub(super) const MAX_CHARS: usize = 128;
