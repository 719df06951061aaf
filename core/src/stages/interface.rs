//! What a stage takes and gives when it is run once, in a session of its own.

use super::signature::{self, Dim, Elements, Port};
use crate::model::{ConnectorConfig, InteractionConfig, LlamaConfig, NetworkConfig, UnetConfig};

/// Inputs and outputs of the first run of a session: the table of [`crate::stage`] with a network's own sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// What it takes. What need not be given has [`Port::absent`].
    pub inputs: Vec<Port>,
    /// What it gives.
    pub outputs: Vec<Output>,
}

/// An output of a stage: 32-bit floats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its name.
    pub name: &'static str,
    /// Its dimensions. A size that follows from the inputs has a name, which is an input's where it is the same.
    pub shape: Vec<Dim>,
}

/// The inputs and outputs of a stage of this network.
pub fn interface(config: &NetworkConfig) -> Interface {
    match config {
        NetworkConfig::VisionEncoder(config) => {
            let patches = (config.image_size / config.patch_size.max(1)).pow(2);
            let features = output("image_features", [BATCH, Dim::Is(patches), Dim::Is(config.hidden_size)]);
            Interface { inputs: signature::vision_encoder(config).inputs, outputs: vec![features] }
        }
        NetworkConfig::LanguageModel(config) => language_model(config),
        NetworkConfig::Connector(config) => connector(config),
        NetworkConfig::TextEncoder(config) => {
            let shape = [BATCH, Dim::Is(config.max_positions), Dim::Is(config.hidden_size)];
            let inputs = signature::text_encoder(config).inputs;
            Interface { inputs, outputs: vec![output("hidden_states", shape)] }
        }
        NetworkConfig::VaeEncoder(config) => {
            let grid = [Dim::Any("latent_height"), Dim::Any("latent_width")];
            let latents = output("latents", [BATCH, Dim::Is(config.latent_channels), grid[0], grid[1]]);
            Interface { inputs: signature::vae_encoder(config).inputs, outputs: vec![latents] }
        }
        NetworkConfig::Denoiser(config) => denoiser(config),
        NetworkConfig::VaeDecoder(config) => {
            let factor = config.downsampling();
            let sides = [Dim::MultipleOf("image_height", factor), Dim::MultipleOf("image_width", factor)];
            let image = output("image", [BATCH, Dim::Is(config.image_channels), sides[0], sides[1]]);
            Interface { inputs: signature::vae_decoder(config).inputs, outputs: vec![image] }
        }
    }
}

const BATCH: Dim = Dim::Any("batch");

fn output(name: &'static str, shape: impl Into<Vec<Dim>>) -> Output {
    Output { name, shape: shape.into() }
}

fn language_model(config: &LlamaConfig) -> Interface {
    let index = |name| {
        let below = config.max_positions.saturating_add(1);
        signature::input(name, Elements::Ids { below }, [Dim::Is(1)]).or_zeros([1])
    };
    let states = [Dim::Is(1), Dim::Any("positions"), Dim::Is(config.hidden_size)];
    let logits = [Dim::Is(1), Dim::Any("wanted"), Dim::Is(config.vocab_size)];
    Interface {
        inputs: vec![
            signature::tokens(config, "input_ids", "length"),
            signature::image_features(config).or_zeros([1, 0, config.vision_size]),
            index("image_position"),
            index("logits_from"),
        ],
        outputs: vec![output("hidden_states", states), output("logits", logits)],
    }
}

fn connector(config: &ConnectorConfig) -> Interface {
    let qformer = &config.qformer;
    let embeds = [BATCH, Dim::Is(qformer.num_queries), Dim::Is(qformer.hidden_size)];
    let mut outputs = vec![output("prompt_embeds", embeds)];
    if let InteractionConfig::Bim(bim) = &config.interaction {
        let side = Dim::Is(bim.grid_size);
        outputs.push(output("image_feature", [BATCH, Dim::Is(bim.feature_channels), side, side]));
    }
    Interface { inputs: signature::connector(config).inputs, outputs }
}

fn denoiser(config: &UnetConfig) -> Interface {
    let feature = signature::image_feature(config);
    let channels = signature::feature_channels(config);
    let inputs = vec![
        signature::sample(config),
        signature::timestep(),
        signature::prompt_embeds(config),
        feature.or_zeros([1, channels, 1, 1]),
    ];
    let noise = [BATCH, Dim::Is(config.out_channels), Dim::Any("height"), Dim::Any("width")];
    Interface { inputs, outputs: vec![output("noise_prediction", noise)] }
}
