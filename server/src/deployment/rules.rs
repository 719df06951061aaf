//! From the configuration to what bounds a deployment's work.

use smartedit_core::stage::StageKind;

use crate::config::{DeploymentConfig, Limits};
use crate::work::Rules;

/// Width times height of all edits that share a run on a CPU: more do not fit its caches and are slower than one after
/// the other.
const CPU_PIXELS: usize = 256 * 256;

/// The same elsewhere: what the largest edit needs that is allowed by default.
const DEVICE_PIXELS: usize = 1024 * 1024;

pub(super) fn rules(config: &DeploymentConfig, limits: &Limits) -> Rules {
    let denoiser = config.candidates(StageKind::Denoiser);
    let on_cpu = denoiser.first().is_none_or(|candidate| candidate.options.device == "cpu");
    let pixels = if on_cpu { CPU_PIXELS } else { DEVICE_PIXELS };
    let (workers, max_batch) = (config.instances.max(1), config.max_batch.max(1));
    Rules {
        max_queue: limits.max_queue,
        max_queue_bytes: limits.max_queue_bytes,
        // Each worker may have a full run.
        concurrency: config.concurrency.unwrap_or(max_batch.saturating_mul(workers)).max(1),
        max_batch,
        max_batch_pixels: config.max_batch_pixels.unwrap_or(pixels),
        max_wait: config.max_wait(),
        workers,
    }
}
