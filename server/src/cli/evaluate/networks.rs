//! Scores that need networks. They run on candle, on the CPU, whatever the deployments run on.

use std::path::PathBuf;

use clap::Args;
use image::RgbImage;
use smartedit_core::metrics::{Background, Mask, MetricError};

use crate::cli::CliError;

/// Where the networks' weights are.
#[derive(Debug, Args)]
pub(super) struct Weights {
    /// Weights for LPIPS: SqueezeNet 1.1 as torchvision stores it, and the linear heads of LPIPS 0.1 (lin0.model.1.weight,
    /// …); PyTorch or safetensors. Give the option once for each file
    #[arg(long, visible_alias = "lpips-heads", value_name = "FILE")]
    lpips_weights: Vec<PathBuf>,
    /// Directory of a CLIP model for the CLIP score, as transformers stores it (openai/clip-vit-large-patch14 is the
    /// benchmark's)
    #[arg(long, value_name = "DIR")]
    clip: Option<PathBuf>,
}

/// Measures backgrounds.
type Lpips = Box<dyn Fn(&Background) -> Result<f64, MetricError>>;

/// Measures a picture against a text.
type Clip = Box<dyn Fn(&RgbImage, &str) -> Result<f64, MetricError>>;

/// The networks of scores, as far as their weights were given.
#[derive(Default)]
pub(super) struct Networks {
    lpips: Option<Lpips>,
    clip: Option<Clip>,
}

impl Networks {
    /// Loads the networks whose weights are given.
    #[cfg(feature = "candle")]
    pub(super) fn load(weights: &Weights) -> Result<Self, CliError> {
        use smartedit_candle::CandleEngine;
        use smartedit_core::engine::Precision;
        use smartedit_core::metrics::{ClipScore, Lpips as LpipsNetwork};

        let mut networks = Self::default();
        if !weights.lpips_weights.is_empty() {
            let engine = CandleEngine::cpu(Precision::F32);
            let lpips = LpipsNetwork::open(&engine, &weights.lpips_weights).map_err(CliError::failed)?;
            networks.lpips = Some(Box::new(move |background| Ok(lpips.distance(&engine, background)?)));
        }
        if let Some(directory) = &weights.clip {
            let engine = CandleEngine::cpu(Precision::F32);
            let clip = ClipScore::open(&engine, directory).map_err(CliError::failed)?;
            networks.clip = Some(Box::new(move |picture, text| clip.score(&engine, picture, text)));
        }
        Ok(networks)
    }

    /// Without candle there are no networks.
    #[cfg(not(feature = "candle"))]
    pub(super) fn load(weights: &Weights) -> Result<Self, CliError> {
        match (weights.lpips_weights.is_empty(), &weights.clip) {
            (true, None) => Ok(Self::default()),
            _ => Err(CliError::usage(
                "LPIPS and CLIP score need the engine candle, which is not built in: build with \
                 `cargo build -p smartedit-server --features candle`",
            )),
        }
    }

    /// Scores that no edit gets, and why.
    pub(super) fn absent(&self) -> Vec<(&'static str, String)> {
        let mut absent = Vec::new();
        if self.lpips.is_none() {
            absent.push(("lpips", "not measured, for lack of --lpips-weights".to_owned()));
        }
        if self.clip.is_none() {
            absent.push(("clip_score", "not measured, for lack of --clip".to_owned()));
        }
        absent
    }

    /// Perceptual distance of the backgrounds.
    pub(super) fn lpips(&self, background: &Background) -> Result<Option<f64>, MetricError> {
        self.lpips.as_ref().map(|lpips| lpips(background)).transpose()
    }

    /// How well the edited region fits its caption; `None` also where there is no region or no caption.
    pub(super) fn clip_score(
        &self,
        edited: &RgbImage,
        mask: &Mask,
        caption: &str,
    ) -> Result<Option<f64>, MetricError> {
        let Some(clip) = self.clip.as_ref().filter(|_| !caption.is_empty()) else { return Ok(None) };
        let part = smartedit_core::metrics::edited_part(edited, mask);
        part.map(|part| clip(&part, caption)).transpose()
    }
}
