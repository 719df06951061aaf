//! Trains a small SmartEdit by the paper's recipe in a world of emoji whose edits are exactly known.

pub mod cli;
pub mod world;
