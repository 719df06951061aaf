//! Flags of how an edit is made.

use std::time::Duration;

use clap::{Args, ValueEnum};
use smartedit_client as client;

use super::CliError;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Seed of all noise [default: random; 0 where edits are scored]
    #[arg(long)]
    seed: Option<u64>,
    /// Denoising steps [default: the model's]
    #[arg(long)]
    steps: Option<u32>,
    /// How closely to follow the instruction [default: the model's]
    #[arg(long, value_name = "SCALE", allow_negative_numbers = true)]
    text_guidance: Option<f32>,
    /// How much of the picture to keep [default: the model's]
    #[arg(long, value_name = "SCALE", allow_negative_numbers = true)]
    image_guidance: Option<f32>,
    /// Size at which to edit; sides are multiples of 8 [default: the model's, or the picture's]
    #[arg(long, value_name = "WxH", value_parser = size)]
    resolution: Option<(u32, u32)>,
    /// How the picture comes to its size [default: stretch]
    #[arg(long, value_enum)]
    resize_mode: Option<ResizeMode>,
    /// Sampler [default: the model's]
    #[arg(long, value_enum)]
    scheduler: Option<Scheduler>,
    /// Generator that makes noise of the seed; torch: as in diffusers on a CPU [default: chacha]
    #[arg(long, value_enum)]
    noise: Option<Noise>,
    /// Temperature of the language model's reply; 0 is greedy [default: 0]
    #[arg(long, allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Index of the prompt template, from 0 [default: 0]
    #[arg(long, value_name = "INDEX")]
    template: Option<u32>,
    /// What the picture should not show (InstructPix2Pix models)
    #[arg(long, value_name = "TEXT")]
    negative_prompt: Option<String>,
    /// LoRA adapter of the deployment; none: no adapter [default: the deployment's]
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// How strong the adapter is, 1 as it was trained [default: the deployment's]
    #[arg(long, value_name = "SCALE", allow_negative_numbers = true)]
    adapter_scale: Option<f32>,
    /// Compute every stage, though its result be kept from an earlier request
    #[arg(long)]
    no_cache: bool,
    /// Leave the orientation alone that the file's EXIF data tell
    #[arg(long)]
    ignore_orientation: bool,
    /// Drop transparency instead of laying the picture over white
    #[arg(long)]
    drop_alpha: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ResizeMode {
    Keep,
    Stretch,
    Fit,
    Crop,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Scheduler {
    EulerAncestral,
    Euler,
    Ddim,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Noise {
    Chacha,
    Torch,
}

impl Options {
    /// The options as the client has them.
    pub(super) fn to_client(&self) -> Result<client::EditOptions, CliError> {
        Ok(client::EditOptions {
            seed: self.seed,
            steps: self.steps,
            text_guidance: self.text_guidance,
            image_guidance: self.image_guidance,
            resize: self.resize()?,
            scheduler: self.scheduler.map(|scheduler| match scheduler {
                Scheduler::EulerAncestral => client::Scheduler::EulerAncestral,
                Scheduler::Euler => client::Scheduler::Euler,
                Scheduler::Ddim => client::Scheduler::Ddim,
            }),
            noise_source: self.noise.map(|noise| match noise {
                Noise::Chacha => client::NoiseSource::ChaCha,
                Noise::Torch => client::NoiseSource::Torch,
            }),
            temperature: self.temperature,
            template: self.template,
            negative_prompt: self.negative_prompt.clone(),
            adapter: self.adapter.clone(),
            adapter_scale: self.adapter_scale,
            exif_orientation: self.ignore_orientation.then_some(client::ExifOrientation::Ignore),
            alpha_mode: self.drop_alpha.then_some(client::AlphaMode::Drop),
            no_cache: self.no_cache,
            ..client::EditOptions::default()
        })
    }

    /// The seed, if one is given.
    pub(super) fn seed(&self) -> Option<u64> {
        self.seed
    }

    /// Whether the file's EXIF orientation is left alone.
    pub(super) fn ignores_orientation(&self) -> bool {
        self.ignore_orientation
    }

    /// Whether transparency is dropped.
    pub(super) fn drops_alpha(&self) -> bool {
        self.drop_alpha
    }

    fn resize(&self) -> Result<client::Resize, CliError> {
        Ok(match (self.resize_mode, self.resolution) {
            (None, None) => client::Resize::Default,
            (None | Some(ResizeMode::Stretch), Some((width, height))) => {
                client::Resize::Stretch(width, height)
            }
            (Some(ResizeMode::Fit), Some((width, height))) => client::Resize::Fit(width, height),
            (Some(ResizeMode::Crop), Some((width, height))) => client::Resize::Crop(width, height),
            (Some(ResizeMode::Keep), None) => client::Resize::Keep,
            (Some(ResizeMode::Keep), Some(_)) => {
                return Err(CliError::usage("--resize-mode keep takes no --resolution"));
            }
            (Some(_), None) => return Err(CliError::usage("this --resize-mode needs a --resolution")),
        })
    }
}

fn size(text: &str) -> Result<(u32, u32), String> {
    let parsed = text
        .split_once(['x', '×'])
        .and_then(|(width, height)| Some((width.trim().parse().ok()?, height.trim().parse().ok()?)));
    parsed.ok_or_else(|| "WIDTHxHEIGHT is needed, such as 512x384".to_owned())
}

/// A positive number of seconds.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let parsed = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    parsed.filter(|duration| !duration.is_zero()).ok_or_else(|| "a positive number is needed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size("512x384"), Ok((512, 384)));
        for text in ["512", "x", "512x", "-1x8", "8x8x8"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_of_seconds() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        for text in ["0", "-1", "NaN", "inf", "soon"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
