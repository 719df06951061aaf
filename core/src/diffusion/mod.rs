//! Noise schedules, samplers, guidance and the denoising loop.
