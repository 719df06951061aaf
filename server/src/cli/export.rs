//! `smartedit export`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use smartedit_core::engine::Precision;
use smartedit_core::model::{InteractionConfig, ModelConfig, ModelDirectory, NetworkConfig};
use smartedit_core::stage::StageKind;
use smartedit_onnx::{ExportOptions, export};

use super::{CliError, print};

#[derive(Debug, Args)]
pub(super) struct Export {
    /// The model directory
    model: PathBuf,
    /// The stage; `unet` is another name of `denoiser`
    #[arg(long, value_name = "STAGE", value_parser = stage)]
    stage: StageKind,
    /// Directory to write to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Element type of weights and activations
    #[arg(long, value_enum, default_value = "f32")]
    precision: ExportPrecision,
    /// Replace files that are there already
    #[arg(long)]
    force: bool,
}

/// Element types that runtimes have kernels for.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum ExportPrecision {
    F32,
    F16,
}

impl Export {
    pub(super) fn run(self) -> Result<(), CliError> {
        let model = ModelDirectory::open(&self.model).map_err(CliError::failed)?;
        let config = model.config();
        let missing = || CliError::failed(format!("{} has no {}", self.model.display(), self.stage));
        let network = &config.stages.get(&self.stage).ok_or_else(missing)?.network;
        let weights = model.stage_weights(self.stage).ok_or_else(missing)?.map_err(CliError::failed)?;
        let options = ExportOptions {
            precision: match self.precision {
                ExportPrecision::F32 => Precision::F32,
                ExportPrecision::F16 => Precision::F16,
            },
            image_feature: makes_image_feature(config),
            force: self.force,
        };
        for file in export(network, &weights, &self.out, options).map_err(CliError::failed)? {
            print(&format!("{}\n", file.display()))?;
        }
        Ok(())
    }
}

/// Whether the model's connector gives the denoiser an image feature.
fn makes_image_feature(config: &ModelConfig) -> bool {
    matches!(
        config.stages.get(&StageKind::Connector).map(|stage| &stage.network),
        Some(NetworkConfig::Connector(connector)) if matches!(connector.interaction, InteractionConfig::Bim(_))
    )
}

fn stage(name: &str) -> Result<StageKind, String> {
    let found = match name {
        "unet" => Some(StageKind::Denoiser),
        _ => StageKind::ALL.into_iter().find(|stage| stage.name() == name),
    };
    found.ok_or_else(|| {
        format!("the stages are {}, or `unet`", StageKind::ALL.map(StageKind::name).join(", "))
    })
}
