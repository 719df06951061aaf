//! Deployments as messages.

use smartedit_core::model::{ModelConfig, PipelineConfig, SchedulerKind};
use smartedit_core::stage::StageKind;
use smartedit_proto::v1;

use super::Service;
use super::messages::{count, stage};
use crate::config::Limits;
use crate::deployment::{AdapterInfo, Adapters, Deployment, PlacedStage, State, Unavailable, without_paths};
use crate::security::Access;

impl Service {
    /// What callers are told of a deployment.
    pub(super) fn describe(&self, deployment: &Deployment, access: &Access) -> v1::Deployment {
        let (queued, running) = deployment.queue().load();
        let state = deployment.state();
        let ready = matches!(state, State::Ready(_));
        let mut description = v1::Deployment {
            name: deployment.name().to_owned(),
            version: deployment.version(),
            is_current: self.deployments().is_current(deployment),
            is_default: self.routes().get("").is_none() && self.deployments().is_default(deployment),
            accepting: ready && self.is_accepting() && deployment.queue().has_room(),
            queued: count(queued),
            running: count(running),
            limits: Some(limits(&access.limits(&self.0.config.limits))),
            ..v1::Deployment::default()
        };
        match state {
            State::Loading => description.set_state(v1::DeploymentState::Loading),
            // It is on its way out: whoever asks later does not find it.
            State::Unloaded => {}
            State::Failed(reason) => {
                description.set_state(v1::DeploymentState::Failed);
                description.message = reason;
            }
            State::Ready(editor) => {
                description.set_state(v1::DeploymentState::Ready);
                description.max_batch = count(deployment.max_batch(editor.as_ref()));
                describe_model(&mut description, editor.config(), editor.stages());
                let adapters = editor.adapters().map(Adapters::list).unwrap_or_default();
                description.adapters = adapters.into_iter().map(adapter).collect();
            }
        }
        description
    }
}

fn describe_model(description: &mut v1::Deployment, model: &ModelConfig, stages: &[PlacedStage]) {
    description.model = model.name.clone();
    match &model.pipeline {
        PipelineConfig::SmartEdit { prompt, .. } => {
            description.set_pipeline(v1::Pipeline::SmartEdit);
            description.templates = count(prompt.templates.len());
        }
        PipelineConfig::InstructPix2Pix { .. } => description.set_pipeline(v1::Pipeline::InstructPix2pix),
    }
    let mut stages: Vec<_> = stages.iter().collect();
    stages.sort_by_key(|placed| StageKind::ALL.iter().position(|kind| *kind == placed.info.kind));
    description.stages = stages.into_iter().map(deployed_stage).collect();
    description.defaults = Some(v1::EditDefaults {
        steps: count(model.defaults.steps),
        text_guidance: model.defaults.text_guidance,
        image_guidance: model.defaults.image_guidance,
        resolution: model
            .defaults
            .resolution
            .map(|(width, height)| v1::Resolution { width: count(width), height: count(height) }),
        scheduler: scheduler(model.scheduler.default).into(),
    });
}

fn deployed_stage(placed: &PlacedStage) -> v1::DeployedStage {
    let PlacedStage { info, threads, unavailable, .. } = placed;
    v1::DeployedStage {
        stage: stage(info.kind).into(),
        engine: info.engine.to_owned(),
        device: info.device.clone(),
        precision: info.precision.to_string(),
        weight_bytes: info.weight_bytes,
        provider: info.provider.clone().unwrap_or_default(),
        threads: threads.map(|threads| count(threads.get())),
        unavailable: unavailable.iter().map(unavailable_placement).collect(),
    }
}

/// An adapter as a message.
pub(super) fn adapter(info: AdapterInfo) -> v1::Adapter {
    let stages = info.stages.into_iter();
    v1::Adapter {
        name: info.name,
        is_default: info.is_default,
        scale: info.scale,
        rank: count(info.rank),
        bytes: info.bytes as u64,
        stages: stages
            .map(|(kind, layers)| v1::AdaptedStage { stage: stage(kind).into(), layers: count(layers) })
            .collect(),
    }
}

fn unavailable_placement(missed: &Unavailable) -> v1::UnavailablePlacement {
    v1::UnavailablePlacement {
        engine: missed.engine.clone(),
        device: missed.device.clone(),
        precision: missed.precision.to_string(),
        providers: missed.providers.clone(),
        reason: without_paths(&missed.reason),
    }
}

fn limits(limits: &Limits) -> v1::EditLimits {
    v1::EditLimits {
        max_image_bytes: limits.max_image_bytes as u64,
        max_image_pixels: limits.max_image_pixels,
        max_edit_pixels: limits.max_edit_pixels,
        max_edit_side: limits.max_edit_side,
        max_steps: limits.max_steps,
        max_instruction_chars: count(limits.max_instruction_chars),
        max_queue: count(limits.max_queue),
        max_compared: count(limits.max_compared),
    }
}

const fn scheduler(kind: SchedulerKind) -> v1::Scheduler {
    match kind {
        SchedulerKind::EulerAncestral => v1::Scheduler::EulerAncestral,
        SchedulerKind::Euler => v1::Scheduler::Euler,
        SchedulerKind::Ddim => v1::Scheduler::Ddim,
    }
}
