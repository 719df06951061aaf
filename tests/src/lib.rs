//! What whole-system tests share: the matrix of engines, the ladder of tolerances, golden packs.

#![allow(clippy::print_stdout, reason = "tests print what they measure")]

pub mod adapters;
pub mod engines;
pub mod golden;
pub mod reference;
pub mod tolerance;
