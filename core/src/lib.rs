//! Everything SmartEdit computes, written once.
//!
//! - [`engine`]: the tensor operations a backend supplies; [`weights`]: name-scoped access to a checkpoint.
//! - [`networks`]: CLIP, LLaMA, QFormer, BIM, UNet and VAE, generic over the engine.
//! - [`stage`]: a network behind named host tensors, the seam between pipelines and backends; [`stages`] puts
//!   the networks of this crate behind it, on any engine.
//! - [`diffusion`] and [`decoding`]: the two loops as state machines without I/O.
//! - [`pipeline`]: SmartEdit and InstructPix2Pix as compositions of stages and loops.
//! - [`adapter`]: LoRA adapters, low-rank updates of a network's layers.
//! - [`cache`]: results of stages that are kept for edits to come; [`interest`]: who waits for what is computed.
//! - [`text`], [`picture`]: tokenizers, prompt template, image reading and preprocessing.
//! - [`metrics`]: how well an edit follows its instruction and keeps the rest.
//! - [`directory`]: output directories that appear whole or not at all.
//! - [`model`]: the model directory, checkpoint reading and conversion.

pub mod adapter;
pub mod cache;
pub mod decoding;
pub mod diffusion;
pub mod directory;
pub mod engine;
pub mod interest;
pub mod metrics;
pub mod model;
pub mod networks;
pub mod picture;
pub mod pipeline;
pub mod stage;
pub mod stages;
pub mod tensor;
pub mod text;
pub mod weights;
