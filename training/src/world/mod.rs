//! A small world of emoji in which every edit has exactly one right outcome.
//!
//! A [`Scene`] is one to four objects on a background, perhaps with a mirror that reflects one of them;
//! its picture is a fixed function of it. An [`Edit`] is a scene, an instruction that names exactly one of
//! its objects, and what shall be in that object's place. Everything sampled is a function of the seed of
//! the random number generator that is passed in.

mod background;
mod benchmark;
mod caption;
mod class;
mod corpus;
mod edit;
mod examples;
mod held_out;
mod instruction;
mod output;
mod phrases;
mod question;
mod reference;
mod sample;
mod scenario;
mod scene;
mod segmentation;
mod sheet;
mod sprite;
mod task;
#[cfg(test)]
mod tests;

pub use background::Background;
pub use benchmark::{Benchmark, write_benchmark};
pub use caption::caption;
pub use class::{Class, Kind};
pub use corpus::corpus;
pub use edit::{Edit, outcome, sample_edit, sample_new};
pub use examples::{Example, examples, write_examples};
pub use held_out::Split;
pub use instruction::{Instruction, instruct};
pub use question::question;
pub use reference::{Reference, references};
pub use sample::sample_scene;
pub use scenario::Scenario;
pub use scene::{Mirror, Object, Scene};
pub use segmentation::{MarkColour, SegmentationEdit, mark, segmentation};
pub use sheet::{sheet, write_sample};
pub use task::{Mixture, Request, Task};

/// Side of a picture in pixels.
pub const SIZE: usize = 64;

/// Every place and size in the world is a multiple of this many pixels.
pub const CELL: usize = 4;

/// The sides of objects in pixels.
pub const OBJECT_SIZES: [usize; 3] = [16, 24, 32];
