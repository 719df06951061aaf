//! What whole-system tests share: the matrix of engines, the ladder of tolerances, golden packs.

pub mod engines;
pub mod golden;
pub mod tolerance;
