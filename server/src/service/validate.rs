//! Checking a request before anything is decoded or queued.

mod size;
mod tensor;

use smartedit_core::adapter::AdapterChoice;
use smartedit_core::model::{ModelConfig, PipelineConfig, SchedulerKind};
use smartedit_core::picture::{Alpha, DecodeOptions, Format, Limits as PictureLimits};
use smartedit_core::pipeline::{EditOptions, ImageTokens, NoiseKind};
use smartedit_proto::v1;

use super::caller;
use super::edit::Order;
use crate::config::{Limits, NO_ADAPTER};
use crate::deployment::Adapters;
use crate::failure::{Failure, Violations};
use crate::work::{Account, Output, Priority, Task};

/// Longest side of a source picture: more than any camera makes, and what decoders can address.
const MAX_SOURCE_SIDE: u32 = 65_535;

/// A request that can be worked on.
pub(super) struct Checked {
    pub(super) task: Task,
    pub(super) account: Account,
    pub(super) seed: u64,
    /// Whether the work goes on when the caller goes away.
    pub(super) keep: bool,
    /// Denoising steps.
    pub(super) steps: usize,
    /// Width and height of the edited picture.
    pub(super) size: (u32, u32),
}

/// Checks a request against the limits and the model, and chooses its seed.
///
/// # Errors
///
/// [`Failure::Invalid`] with every field that has a value that cannot be; [`Failure::Picture`] if the source file
/// is the only thing at fault; [`Failure::Forbidden`] if the caller may not say on whose account it is.
pub(super) fn check(
    order: Order,
    limits: &Limits,
    model: &ModelConfig,
    adapters: Option<&Adapters>,
) -> Result<Checked, Failure> {
    let Order { image, instruction, options, access, .. } = order;
    let limits = &access.limits(limits);
    let mut check = Check { violations: Violations::default(), limits, model };

    check.text("instruction", &instruction);
    if instruction.trim().is_empty() {
        check.violations.add("instruction", "is empty");
    }
    let output = check.output(&options);
    let reading = check.reading(&options);
    let source = smartedit_core::picture::dimensions(&image, &reading);
    let resize = check.resize(&options, source.as_ref().ok().copied());
    let scheduler = check.scheduler(&options);
    let image_tokens = check.image_tokens(&options);
    let noise = check.noise_source(&options);
    let steps = check.steps(&options);
    check.number("options.text_guidance", options.text_guidance);
    check.number("options.image_guidance", options.image_guidance);
    check.number("options.temperature", options.temperature);
    check.template(&options);
    check.negative_prompt(&options);
    let interval = check.preview_interval(&options);
    let priority = check.priority(&options);
    let named = check.caller(&options);
    let adapter = check.adapter(&options, adapters)?;
    let (initial_latents, step_noise) = check.replay(&options, steps, resize.size);

    let caller = match named {
        Some(name) => access.on_behalf_of(name)?,
        None => access.caller(),
    };
    if let Err(error) = source {
        if check.violations.is_empty() {
            return Err(Failure::Picture(error));
        }
        check.violations.add("image", error);
    }
    if !check.violations.is_empty() {
        return Err(Failure::Invalid(check.violations));
    }

    let seed = options.seed.unwrap_or_else(|| fastrand::u32(..).into());
    let edit = EditOptions {
        seed,
        noise,
        steps: options.steps.map(|steps| steps as usize),
        text_guidance: options.text_guidance,
        image_guidance: options.image_guidance,
        resize: resize.how,
        scheduler,
        negative_prompt: options.negative_prompt.filter(|prompt| !prompt.is_empty()),
        temperature: options.temperature.unwrap_or(0.0),
        template: options.template.unwrap_or(0) as usize,
        image_tokens,
        control_tokens: options.control_tokens,
        initial_latents,
        step_noise,
        no_cache: options.no_cache,
        adapter,
    };
    let task =
        Task { image, reading, instruction, options: edit, preview_interval: interval, output, record: None };
    let size = resize.size.unwrap_or_default();
    let account = Account { caller, priority, steps, pixels: size.0 as usize * size.1 as usize };
    Ok(Checked { task, account, seed, keep: options.keep_on_disconnect, steps, size })
}

struct Check<'a> {
    violations: Violations,
    limits: &'a Limits,
    model: &'a ModelConfig,
}

impl Check<'_> {
    /// An enum's value, or a violation if this build does not know it.
    fn known<E: TryFrom<i32> + Default>(&mut self, field: &str, value: i32) -> E {
        E::try_from(value).unwrap_or_else(|_| {
            self.violations.add(field, format!("has the unknown value {value}"));
            E::default()
        })
    }

    fn text(&mut self, field: &str, text: &str) {
        let (chars, limit) = (text.chars().count(), self.limits.max_instruction_chars);
        if chars > limit {
            self.violations.add(field, format!("has {chars} characters, at most {limit} are allowed"));
        }
    }

    fn number(&mut self, field: &str, value: Option<f32>) {
        if let Some(value) = value.filter(|value| !value.is_finite() || *value < 0.0) {
            self.violations.add(field, format!("is {value}, a number of 0 or more is needed"));
        }
    }

    fn steps(&mut self, options: &v1::EditOptions) -> usize {
        let limit = self.limits.max_steps;
        let default = self.model.defaults.steps;
        let steps = options.steps.map_or(default, |steps| steps as usize);
        if steps == 0 || steps > limit as usize {
            let from = if options.steps.is_none() { " by default" } else { "" };
            self.violations.add("options.steps", format!("is {steps}{from}, 1 to {limit} are allowed"));
        }
        steps
    }

    fn scheduler(&mut self, options: &v1::EditOptions) -> Option<SchedulerKind> {
        match self.known("options.scheduler", options.scheduler) {
            v1::Scheduler::Unspecified => None,
            v1::Scheduler::EulerAncestral => Some(SchedulerKind::EulerAncestral),
            v1::Scheduler::Euler => Some(SchedulerKind::Euler),
            v1::Scheduler::Ddim => Some(SchedulerKind::Ddim),
        }
    }

    fn priority(&mut self, options: &v1::EditOptions) -> Priority {
        match self.known("options.priority", options.priority) {
            v1::Priority::Unspecified | v1::Priority::Interactive => Priority::Interactive,
            v1::Priority::Batch => Priority::Batch,
        }
    }

    fn caller<'o>(&mut self, options: &'o v1::EditOptions) -> Option<&'o str> {
        let name = &options.caller;
        let (chars, limit) = (name.chars().count(), caller::MAX_CHARS);
        if chars > limit {
            let message = format!("has {chars} characters, at most {limit} are allowed");
            self.violations.add("options.caller", message);
        }
        (!name.is_empty()).then_some(name.as_str())
    }

    fn noise_source(&mut self, options: &v1::EditOptions) -> NoiseKind {
        match self.known("options.noise_source", options.noise_source) {
            v1::NoiseSource::Unspecified | v1::NoiseSource::Chacha => NoiseKind::ChaCha,
            v1::NoiseSource::Torch => NoiseKind::Torch,
        }
    }

    fn image_tokens(&mut self, options: &v1::EditOptions) -> ImageTokens {
        match self.known("options.image_tokens", options.image_tokens) {
            v1::ImageTokens::Unspecified | v1::ImageTokens::Forced => ImageTokens::Forced,
            v1::ImageTokens::Free => ImageTokens::Free,
        }
    }

    fn reading(&mut self, options: &v1::EditOptions) -> DecodeOptions {
        let ignore_orientation = match self.known("options.exif_orientation", options.exif_orientation) {
            v1::ExifOrientation::Unspecified | v1::ExifOrientation::Apply => false,
            v1::ExifOrientation::Ignore => true,
        };
        let alpha = match self.known("options.alpha_mode", options.alpha_mode) {
            v1::AlphaMode::Unspecified | v1::AlphaMode::White => Alpha::OverWhite,
            v1::AlphaMode::Drop => Alpha::Drop,
        };
        let limits = PictureLimits {
            max_bytes: self.limits.max_image_bytes as u64,
            max_pixels: self.limits.max_image_pixels,
            max_side: MAX_SOURCE_SIDE,
        };
        DecodeOptions { limits, alpha, ignore_orientation }
    }

    fn output(&mut self, options: &v1::EditOptions) -> Output {
        let format = match self.known("options.output_format", options.output_format) {
            v1::OutputFormat::Unspecified | v1::OutputFormat::Png => Format::Png,
            v1::OutputFormat::Jpeg => Format::Jpeg,
            v1::OutputFormat::Webp => Format::WebP,
        };
        let quality = options.output_quality.map(|quality| {
            let valid = u8::try_from(quality).ok().filter(|quality| (1..=100).contains(quality));
            if valid.is_none() {
                self.violations.add("options.output_quality", format!("is {quality}, 1 to 100 are allowed"));
            } else if format == Format::WebP {
                self.violations.add("options.output_quality", "cannot be chosen: WebP is written lossless");
            }
            valid.unwrap_or(100)
        });
        Output { format, quality }
    }

    fn template(&mut self, options: &v1::EditOptions) {
        let Some(template) = options.template.filter(|template| *template != 0) else { return };
        match &self.model.pipeline {
            PipelineConfig::SmartEdit { prompt, .. } => {
                let count = prompt.templates.len();
                if template as usize >= count {
                    let message =
                        format!("is {template}, but the model has {count} templates, counted from 0");
                    self.violations.add("options.template", message);
                }
            }
            PipelineConfig::InstructPix2Pix { .. } => {
                self.violations.add("options.template", "cannot be chosen: the model has no templates");
            }
        }
    }

    fn negative_prompt(&mut self, options: &v1::EditOptions) {
        let Some(prompt) = options.negative_prompt.as_deref().filter(|prompt| !prompt.is_empty()) else {
            return;
        };
        self.text("options.negative_prompt", prompt);
        if matches!(self.model.pipeline, PipelineConfig::SmartEdit { .. }) {
            let message = "is for InstructPix2Pix models, the deployment's is a SmartEdit model";
            self.violations.add("options.negative_prompt", message);
        }
    }

    /// The adapter that is chosen. Where the model can have none, none can be named.
    fn adapter(
        &mut self,
        options: &v1::EditOptions,
        adapters: Option<&Adapters>,
    ) -> Result<AdapterChoice, Failure> {
        let (name, scale) = (options.adapter.as_deref(), options.adapter_scale);
        let chosen = match adapters {
            Some(adapters) => adapters.choose(name, scale),
            None if name.is_none_or(|name| name.is_empty() || name == NO_ADAPTER) && scale.is_none() => {
                Ok(AdapterChoice::Default)
            }
            None => {
                Err(Failure::invalid("options.adapter", "cannot be chosen: the deployment has no adapters"))
            }
        };
        chosen.or_else(|failure| match failure {
            Failure::Invalid(violations) => {
                violations.iter().for_each(|(field, message)| self.violations.add(field, message));
                Ok(AdapterChoice::Default)
            }
            failure => Err(failure),
        })
    }

    fn preview_interval(&mut self, options: &v1::EditOptions) -> usize {
        let limit = self.limits.max_steps;
        let interval = options.preview_interval.unwrap_or(0);
        if interval > limit {
            self.violations
                .add("options.preview_interval", format!("is {interval}, at most {limit} is allowed"));
        }
        interval as usize
    }
}

#[cfg(test)]
mod tests;
