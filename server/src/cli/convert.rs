//! `smartedit convert`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use smartedit_core::engine::Precision;
use smartedit_core::model::convert::{
    InstructPix2PixSources, SmartEditSources, convert_instruct_pix2pix, convert_smartedit,
};

use super::{CliError, print};

#[derive(Debug, Args)]
pub(super) struct Convert {
    #[command(subcommand)]
    from: From,
}

#[derive(Debug, Subcommand)]
enum From {
    /// The official SmartEdit release and the models it builds on
    #[command(name = "smartedit")]
    SmartEdit(Box<SmartEdit>),
    /// A diffusers directory: InstructPix2Pix, MagicBrush, InstructDiffusion
    #[command(name = "instruct-pix2pix")]
    InstructPix2Pix(InstructPix2Pix),
}

#[derive(Debug, Args)]
struct SmartEdit {
    /// Vicuna: configuration and tokenizer
    #[arg(long, value_name = "DIR")]
    vicuna: PathBuf,
    /// LLaVA: language model
    #[arg(long, value_name = "DIR")]
    llava: PathBuf,
    /// CLIP vision tower
    #[arg(long, value_name = "DIR")]
    vision_tower: PathBuf,
    /// SmartEdit: what was trained on top
    #[arg(long, value_name = "DIR")]
    smartedit: PathBuf,
    /// InstructPix2Pix: VAE, text encoder, scheduler
    #[arg(long, value_name = "DIR")]
    instruct_pix2pix: PathBuf,
    /// BERT `config.json` that tells the QFormer's heads [default: bert-base's]
    #[arg(long, value_name = "FILE")]
    qformer_config: Option<PathBuf>,
    /// Prompt templates, lines `Human: …` and `GPT: …` [default: one pair]
    #[arg(long, value_name = "FILE")]
    templates: Option<PathBuf>,
    /// System sentence of the prompt [default: the release's]
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
struct InstructPix2Pix {
    /// The diffusers directory
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
struct Target {
    /// Model directory to write; it must not exist
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The model's name [default: that of the source]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Element type to write [default: that of each source tensor]
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Dtype {
    F32,
    Bf16,
    F16,
}

impl Dtype {
    const fn precision(self) -> Precision {
        match self {
            Self::F32 => Precision::F32,
            Self::Bf16 => Precision::Bf16,
            Self::F16 => Precision::F16,
        }
    }
}

impl Convert {
    pub(super) fn run(self) -> Result<(), CliError> {
        let report = match self.from {
            From::SmartEdit(args) => {
                let sources = SmartEditSources {
                    vicuna: args.vicuna,
                    llava: args.llava,
                    vision_tower: args.vision_tower,
                    smartedit: args.smartedit,
                    instruct_pix2pix: args.instruct_pix2pix,
                    qformer_config: args.qformer_config,
                    templates: args.templates,
                    system: args.system,
                    name: args.target.name,
                    dtype: args.target.dtype.map(Dtype::precision),
                };
                convert_smartedit(&sources, &args.target.out)
            }
            From::InstructPix2Pix(args) => {
                let sources = InstructPix2PixSources {
                    from: args.from,
                    name: args.target.name,
                    dtype: args.target.dtype.map(Dtype::precision),
                };
                convert_instruct_pix2pix(&sources, &args.target.out)
            }
        };
        print(&report.map_err(CliError::failed)?.to_string())
    }
}
