//! Trains a small SmartEdit by the paper's recipe in a world of emoji whose edits are exactly known.

pub mod cli;
pub mod condition;
pub mod conversation;
pub mod curves;
pub mod diffusion;
mod initial;
pub mod lab;
pub mod machine;
pub mod objectives;
pub mod optimizer;
pub mod parameters;
pub mod pictures;
pub mod pool;
pub mod recipe;
pub mod run;
pub mod ship;
pub mod source;
pub mod trainer;
pub mod vocabulary;
pub mod world;
