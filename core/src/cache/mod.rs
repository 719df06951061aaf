//! Results that are kept because they are likely to be needed again.
//!
//! A [`StageCache`] keeps what stages made, under a [`Key`] that is a digest of everything that shapes it: what
//! computes the stage, and every input. Equal keys therefore mean equal results, whichever model, deployment or
//! request they come from.

mod key;
mod lru;
mod results;

pub use key::{Key, KeyBuilder};
pub(crate) use lru::BoundedLru;
pub use results::{Claim, Lookup, StageCache, Usage};
