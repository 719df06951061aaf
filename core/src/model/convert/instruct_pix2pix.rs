//! InstructPix2Pix and models of its architecture.

use std::collections::BTreeMap;
use std::path::Path;

use super::diffusion::{CLIP_TOKENIZER, Diffusers};
use super::plan::{Findings, Plan};
use super::source::{DIFFUSERS, Source, base_name};
use super::{Assembly, ConvertError, InstructPix2PixSources, Report};
use crate::model::{EditDefaults, NetworkConfig, PipelineConfig};

pub(super) fn convert(sources: &InstructPix2PixSources, out: &Path) -> Result<Report, ConvertError> {
    let mut findings = Findings::default();
    let diffusers = Diffusers::open(&mut findings, &sources.from);
    let unet = findings.keep(Source::open(&sources.from.join("unet"), DIFFUSERS));

    let mut plans = Vec::new();
    diffusers.plan(&mut findings, &mut plans);
    if let Some((config, unet)) = diffusers.unet.clone().zip(unet.as_ref()) {
        let network = NetworkConfig::Denoiser(config);
        let plan = Plan::renamed(&mut findings, network, &diffusers.unet_config(), unet, |name| {
            vec![name.to_owned()]
        });
        if plan.is_some() {
            findings.settle(unet, |_| None);
        }
        plans.extend(plan);
    }

    let name = base_name(&sources.from);
    Assembly {
        name: sources.name.clone().unwrap_or_else(|| name.clone()),
        pipeline: PipelineConfig::InstructPix2Pix { clip_tokenizer: CLIP_TOKENIZER.to_owned() },
        defaults: EditDefaults { steps: 100, text_guidance: 7.5, image_guidance: 1.5, resolution: None },
        sources: BTreeMap::from([("instruct_pix2pix".to_owned(), name)]),
        dtype: sources.dtype,
        findings,
        plans,
    }
    .write(out, diffusers.scheduler.clone(), |writer| diffusers.copy_tokenizer(writer))
}
