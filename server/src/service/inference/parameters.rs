//! The parameters of a request.

use std::collections::HashMap;
use std::time::Duration;

use smartedit_proto::inference::InferParameter;
use smartedit_proto::inference::infer_parameter::ParameterChoice;
use smartedit_proto::v1;

use crate::failure::{Violations, shortened};

/// Where a request's parameters are in messages about it.
pub(super) const FIELD: &str = "parameters";

/// The parameter that keeps edits on one deployment of a route.
const ROUTE_KEY: &str = "route_key";

/// Unknown parameters of a request that are named.
const MAX_UNKNOWN: usize = 8;

/// The parameters of a request that have not been read yet.
pub(super) struct Parameters<'a> {
    given: HashMap<String, InferParameter>,
    violations: &'a mut Violations,
    /// The names of those that may be given.
    known: Vec<&'static str>,
}

/// What the parameters of an edit ask for.
pub(super) struct EditParameters {
    pub(super) options: v1::EditOptions,
    /// Whether there are to be answers on the way.
    pub(super) progress: bool,
}

/// The route key among the parameters of a request, which is needed before the others are read; empty if there is none.
pub(super) fn route_key(given: &HashMap<String, InferParameter>) -> &str {
    match given.get(ROUTE_KEY).and_then(|parameter| parameter.parameter_choice.as_ref()) {
        Some(ParameterChoice::StringParam(key)) => key,
        _ => "",
    }
}

impl<'a> Parameters<'a> {
    /// Reads parameters and adds what is wrong with them.
    pub(super) fn new(given: HashMap<String, InferParameter>, violations: &'a mut Violations) -> Self {
        Self { given, violations, known: Vec::new() }
    }

    /// What every model's requests may have: how long the caller waits. What the last answer is called is always told.
    pub(super) fn timeout(&mut self) -> Option<Duration> {
        self.flag("triton_enable_empty_final_response");
        self.integer("timeout").filter(|micros| *micros > 0).map(Duration::from_micros)
    }

    /// The options of an edit, and whether there are to be answers on the way, as only a stream can have.
    pub(super) fn edit(&mut self, streaming: bool) -> EditParameters {
        let options = self.options();
        let progress = self.flag("progress");
        if progress && !streaming {
            self.refuse("progress", "needs ModelStreamInfer");
        } else if !progress && options.preview_interval.is_some_and(|interval| interval > 0) {
            self.refuse("preview_interval", "needs progress");
        }
        EditParameters { options, progress }
    }

    fn options(&mut self) -> v1::EditOptions {
        use v1::{AlphaMode, ExifOrientation, ImageTokens, NoiseSource, OutputFormat, ResizeMode, Scheduler};
        let schedulers = [
            ("euler_ancestral", Scheduler::EulerAncestral),
            ("euler", Scheduler::Euler),
            ("ddim", Scheduler::Ddim),
        ];
        let resize_modes = [
            ("keep", ResizeMode::Keep),
            ("stretch", ResizeMode::Stretch),
            ("fit", ResizeMode::Fit),
            ("crop", ResizeMode::Crop),
        ];
        let formats =
            [("png", OutputFormat::Png), ("jpeg", OutputFormat::Jpeg), ("webp", OutputFormat::Webp)];
        let image_tokens = [("forced", ImageTokens::Forced), ("free", ImageTokens::Free)];
        let noise_sources = [("chacha", NoiseSource::Chacha), ("torch", NoiseSource::Torch)];
        let orientations = [("apply", ExifOrientation::Apply), ("ignore", ExifOrientation::Ignore)];
        let alpha_modes = [("white", AlphaMode::White), ("drop", AlphaMode::Drop)];
        v1::EditOptions {
            seed: self.integer("seed"),
            steps: self.count("steps"),
            text_guidance: self.number("text_guidance"),
            image_guidance: self.number("image_guidance"),
            resolution: self.resolution(),
            resize_mode: self.choice("resize_mode", &resize_modes),
            scheduler: self.choice("scheduler", &schedulers),
            temperature: self.number("temperature"),
            template: self.count("template"),
            image_tokens: self.choice("image_tokens", &image_tokens),
            negative_prompt: self.text("negative_prompt"),
            preview_interval: self.count("preview_interval"),
            output_format: self.choice("output_format", &formats),
            output_quality: self.count("output_quality"),
            keep_on_disconnect: self.flag("keep_on_disconnect"),
            exif_orientation: self.choice("exif_orientation", &orientations),
            alpha_mode: self.choice("alpha_mode", &alpha_modes),
            control_tokens: self.flag("control_tokens"),
            replay: None,
            noise_source: self.choice("noise_source", &noise_sources),
            no_cache: self.flag("no_cache"),
            priority: self.priority().into(),
            caller: self.text("caller").unwrap_or_default(),
            adapter: self.text("adapter"),
            adapter_scale: self.number("adapter_scale"),
            route_key: self.text(ROUTE_KEY).unwrap_or_default(),
        }
    }

    /// What a run of a stage may have.
    pub(super) fn stage(&mut self) {
        if self.integer("priority").is_some_and(|priority| priority != 0) {
            self.refuse("priority", "must be 0: runs of stages are served in the order of their arrival");
        }
    }

    /// The protocol's priorities are numbers, the lowest the most urgent.
    fn priority(&mut self) -> v1::Priority {
        match self.integer("priority") {
            None | Some(0) => v1::Priority::Unspecified,
            Some(1) => v1::Priority::Interactive,
            Some(2) => v1::Priority::Batch,
            Some(other) => {
                self.refuse("priority", &format!("is {other}; there are 1, interactive, and 2, batch"));
                v1::Priority::Unspecified
            }
        }
    }

    fn resolution(&mut self) -> Option<v1::Resolution> {
        match (self.count("width"), self.count("height")) {
            (None, None) => None,
            (Some(width), Some(height)) => Some(v1::Resolution { width, height }),
            (None, Some(_)) => {
                self.refuse("width", "is needed where there is a height");
                None
            }
            (Some(_), None) => {
                self.refuse("height", "is needed where there is a width");
                None
            }
        }
    }

    /// Refuses what has not been read.
    pub(super) fn finish(mut self) {
        let mut rest: Vec<String> = std::mem::take(&mut self.given).into_keys().collect();
        rest.sort_unstable();
        let known = self.known.join(", ");
        for name in rest.into_iter().take(MAX_UNKNOWN) {
            self.refuse(&shortened(&name), &format!("is not known; there are {known}"));
        }
    }

    fn flag(&mut self, name: &'static str) -> bool {
        let read = |choice| match choice {
            ParameterChoice::BoolParam(value) => Some(value),
            _ => None,
        };
        self.take(name, "bool_param", read).unwrap_or(false)
    }

    fn text(&mut self, name: &'static str) -> Option<String> {
        let read = |choice| match choice {
            ParameterChoice::StringParam(value) => Some(value),
            _ => None,
        };
        self.take(name, "string_param", read)
    }

    fn integer(&mut self, name: &'static str) -> Option<u64> {
        let read = |choice| match choice {
            ParameterChoice::Int64Param(value) => u64::try_from(value).ok(),
            ParameterChoice::Uint64Param(value) => Some(value),
            _ => None,
        };
        self.take(name, "int64_param of 0 or more, or uint64_param", read)
    }

    fn count(&mut self, name: &'static str) -> Option<u32> {
        let value = self.integer(name)?;
        let count = u32::try_from(value).ok();
        if count.is_none() {
            self.refuse(name, &format!("is {value}, which is too large"));
        }
        count
    }

    fn number(&mut self, name: &'static str) -> Option<f32> {
        let read = |choice| match choice {
            ParameterChoice::DoubleParam(value) => Some(value as f32),
            ParameterChoice::Int64Param(value) => Some(value as f32),
            ParameterChoice::Uint64Param(value) => Some(value as f32),
            ParameterChoice::BoolParam(_) | ParameterChoice::StringParam(_) => None,
        };
        self.take(name, "double_param", read)
    }

    /// The value of an enumeration by its name; 0, which is the default, without one.
    fn choice<E: Copy + Into<i32>>(&mut self, name: &'static str, choices: &[(&str, E)]) -> i32 {
        let Some(text) = self.text(name) else { return 0 };
        match choices.iter().find(|(choice, _)| *choice == text) {
            Some((_, value)) => (*value).into(),
            None => {
                let choices: Vec<_> = choices.iter().map(|(choice, _)| *choice).collect();
                let message = format!("is `{}`; there are {}", shortened(&text), choices.join(", "));
                self.refuse(name, &message);
                0
            }
        }
    }

    fn take<T>(
        &mut self,
        name: &'static str,
        kind: &str,
        read: impl FnOnce(ParameterChoice) -> Option<T>,
    ) -> Option<T> {
        self.known.push(name);
        let given = self.given.remove(name)?;
        let value = given.parameter_choice.and_then(read);
        if value.is_none() {
            self.refuse(name, &format!("needs {kind}"));
        }
        value
    }

    fn refuse(&mut self, name: &str, message: &str) {
        self.violations.add(format!("{FIELD}.{name}"), message);
    }
}

#[cfg(test)]
mod tests;
