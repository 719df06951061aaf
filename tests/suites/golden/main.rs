//! The pipelines against tensors of the official implementation.
//!
//! The packs were made by running the official modules, loaders and inference script (CPU, float32,
//! torch 2.1.0, transformers 4.28.1, diffusers 0.20.2, peft 0.4.0) on tiny random weights.

mod adapters;
mod agreement;
mod drafts;
mod golden_edits;
mod golden_networks;
mod golden_stages;
mod metrics;
mod programs;
mod replay;
mod reuse;
mod roads;
mod together;
mod variants;
