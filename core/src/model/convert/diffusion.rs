//! The stages that SmartEdit shares with InstructPix2Pix, from a directory in diffusers layout.

use std::path::{Path, PathBuf};

use super::configs::{self, ConfigFile};
use super::plan::{Findings, Plan};
use super::source::{DIFFUSERS, Source, TRANSFORMERS};
use super::{ConvertError, Problem};
use crate::model::{ModelWriter, NetworkConfig, SchedulerConfig, TextConfig, UnetConfig, VaeConfig};
use crate::text::ClipTokenizer;

/// Directory of the CLIP tokenizer's files in a model directory.
pub(super) const CLIP_TOKENIZER: &str = "clip_tokenizer";

const NEEDED_TOKENIZER_FILES: [&str; 2] = ["vocab.json", "merges.txt"];
const OTHER_TOKENIZER_FILES: [&str; 2] = ["special_tokens_map.json", "tokenizer_config.json"];

/// What was found in a directory in diffusers layout; parts with problems are missing.
pub(super) struct Diffusers {
    directory: PathBuf,
    text: Option<(Source, TextConfig)>,
    vae: Option<(Source, VaeConfig)>,
    pub(super) unet: Option<UnetConfig>,
    pub(super) scheduler: Option<SchedulerConfig>,
}

impl Diffusers {
    /// Reads the configurations and opens the checkpoints of VAE and text encoder.
    pub(super) fn open(findings: &mut Findings, directory: &Path) -> Self {
        let path = |name: &str| directory.join(name);
        let text_source = findings.keep(Source::open(&path("text_encoder"), TRANSFORMERS));
        let vae_source = findings.keep(Source::open(&path("vae"), DIFFUSERS));
        let text = ConfigFile::read(&path("text_encoder/config.json")).and_then(configs::text);
        let text = findings.keep(text);
        let vae = ConfigFile::read(&path("vae/config.json")).and_then(|file| configs::vae(&file));
        let vae = findings.keep(vae);
        let unet_file = path("unet/config.json");
        let unet = ConfigFile::read(&unet_file).and_then(|file| {
            let unet = configs::unet(&file)?;
            match &vae {
                Some(vae) if unet.in_channels != 2 * vae.latent_channels => Err(file.problem(format!(
                    "`in_channels` is {}; a UNet that edits takes {}: noisy latents and those of the image",
                    unet.in_channels,
                    2 * vae.latent_channels
                ))),
                _ => Ok(unet),
            }
        });
        let unet = findings.keep(unet);
        let scheduler = ConfigFile::read(&path("scheduler/scheduler_config.json"))
            .and_then(|file| configs::scheduler(&file));
        let scheduler = findings.keep(scheduler).map(|(scheduler, notes)| {
            findings.notes.extend(notes);
            scheduler
        });
        check_tokenizer(findings, &path("tokenizer"));
        Self {
            directory: directory.to_owned(),
            text: text_source.zip(text),
            vae: vae_source.zip(vae),
            unet,
            scheduler,
        }
    }

    /// Path of the UNet's configuration.
    pub(super) fn unet_config(&self) -> PathBuf {
        self.directory.join("unet/config.json")
    }

    /// Plans text encoder, VAE encoder and VAE decoder.
    pub(super) fn plan<'a>(&'a self, findings: &mut Findings, plans: &mut Vec<Plan<'a>>) {
        if let Some((source, config)) = &self.text {
            let network = NetworkConfig::TextEncoder(config.clone());
            let file = self.directory.join("text_encoder/config.json");
            let plan = Plan::renamed(findings, network, &file, source, |name| {
                vec![format!("text_model.{name}"), name.to_owned()]
            });
            if plan.is_some() {
                findings.settle(source, |name| match name {
                    name if name.ends_with("position_ids") => Some("buffer, computed".to_owned()),
                    "text_projection.weight" => Some("the projection for image search".to_owned()),
                    _ => None,
                });
            }
            plans.extend(plan);
        }
        if let Some((source, config)) = &self.vae {
            let file = self.directory.join("vae/config.json");
            let networks =
                [NetworkConfig::VaeEncoder(config.clone()), NetworkConfig::VaeDecoder(config.clone())];
            let found: Vec<Plan<'a>> = networks
                .into_iter()
                .filter_map(|network| Plan::renamed(findings, network, &file, source, vae_names))
                .collect();
            if found.len() == 2 {
                findings.settle(source, |_| None);
            }
            plans.extend(found);
        }
    }

    /// Copies the tokenizer's files.
    pub(super) fn copy_tokenizer(&self, writer: &mut ModelWriter) -> Result<(), ConvertError> {
        let directory = self.directory.join("tokenizer");
        for name in NEEDED_TOKENIZER_FILES.iter().chain(&OTHER_TOKENIZER_FILES) {
            let from = directory.join(name);
            if NEEDED_TOKENIZER_FILES.contains(name) || from.is_file() {
                writer.copy(&from, &format!("{CLIP_TOKENIZER}/{name}"))?;
            }
        }
        Ok(())
    }
}

fn check_tokenizer(findings: &mut Findings, directory: &Path) {
    let missing: Vec<&str> =
        NEEDED_TOKENIZER_FILES.into_iter().filter(|name| !directory.join(name).is_file()).collect();
    if missing.is_empty() {
        let loaded = ClipTokenizer::from_directory(directory)
            .map_err(|e| Problem::Config { path: directory.to_owned(), message: e.to_string() });
        findings.keep(loaded);
    }
    findings.problems.extend(missing.into_iter().map(|name| Problem::MissingFile {
        path: directory.to_owned(),
        what: "a CLIP tokenizer file".to_owned(),
        looked_for: name.to_owned(),
    }));
}

/// The names a VAE tensor may have: attention was renamed in diffusers 0.13.
fn vae_names(name: &str) -> Vec<String> {
    const RENAMED: [(&str, &str); 4] =
        [(".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn.")];
    let mut names = vec![name.to_owned()];
    if name.contains(".attentions.") {
        let old = RENAMED.iter().filter(|(new, _)| name.contains(new));
        names.extend(old.map(|(new, old)| name.replace(new, old)));
    }
    names
}
