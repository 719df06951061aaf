//! On whose account an edit is made, where a request says it or nobody asks for it.

use crate::work::Caller;

/// Characters of a caller's name.
pub(super) const MAX_CHARS: usize = 128;

/// The account of edits that a route's shadow makes.
pub(super) fn shadow(route: &str) -> Caller {
    format!("shadow {route}").into()
}
