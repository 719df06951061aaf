//! What training never sees.

use crate::world::{Class, Object};

/// Which part of the world to draw from.
///
/// One in ten placements (a class at a size at a place), one in twelve pairs of classes (this one into that
/// one) and some phrasings are never part of training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// Nothing that is held out.
    Train,
    /// Scenes with at least one placement that training never has, so that no such scene is a training
    /// scene; edits into any class.
    HeldOut,
}

/// Whether training never changes an object of class `old` into one of class `new`.
pub(crate) fn is_held_out_pair(old: Class, new: Class) -> bool {
    old != new && mix(&[1, old.index(), new.index()]).is_multiple_of(12)
}

/// Whether training never has an object of its class and size at its place.
pub(crate) fn is_held_out_placement(object: &Object) -> bool {
    mix(&[2, object.class.index(), object.size, object.x, object.y]).is_multiple_of(10)
}

/// FNV-1a over the parts, then the finisher of SplitMix64: fixed for all time, unlike `std`'s hashers.
fn mix(parts: &[usize]) -> u64 {
    let hash = parts
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, &part| (hash ^ part as u64).wrapping_mul(0x100_0000_01b3));
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
