//! From image-token states to the UNet's conditioning: QFormer, then BIM or one of the paper's ablations of it.

use super::bim::Bim;
use super::layers::{Attention, AttentionShape, LayerNorm};
use super::qformer::QFormer;
use crate::engine::{Engine, Result};
use crate::model::{ConnectorConfig, InteractionConfig, SimpleCaConfig};
use crate::weights::{self, Weights};

/// Weight of the interaction's output beside the QFormer's.
const TEXT_FEATURE_WEIGHT: f64 = 0.5;

/// QFormer and what relates its output to the image.
pub struct Connector<T> {
    /// The QFormer.
    pub qformer: QFormer<T>,
    /// What follows it.
    pub interaction: Interaction<T>,
}

/// How the QFormer's output meets the image features.
pub enum Interaction<T> {
    /// Both read each other.
    Bim(Bim<T>),
    /// The text reads the image, once; the UNet gets no image feature.
    SimpleCa(SimpleCa<T>),
    /// They do not meet.
    Plain,
}

/// The UNet's conditioning.
pub struct Conditioning<T> {
    /// What cross-attention reads, `[batch, 77, q]`.
    pub prompt_embeds: T,
    /// What is added after the first convolution, `[batch, c0, g, g]`; BIM only.
    pub image_feature: Option<T>,
}

impl<T: Clone> Connector<T> {
    /// Loads QFormer and interaction.
    pub fn load(weights: &Weights<'_, T>, config: &ConnectorConfig) -> weights::Result<Self> {
        let text_size = config.qformer.hidden_size;
        let interaction = match &config.interaction {
            InteractionConfig::Bim(bim) => {
                Interaction::Bim(Bim::load(&weights.scope("bim"), bim, text_size)?)
            }
            InteractionConfig::SimpleCa(simple) => {
                Interaction::SimpleCa(SimpleCa::load(&weights.scope("simple_ca"), simple, text_size)?)
            }
            InteractionConfig::Plain => Interaction::Plain,
        };
        Ok(Self { qformer: QFormer::load(weights, &config.qformer)?, interaction })
    }

    /// Image-token states `[batch, 32, h]` and image features `[batch, p, e]` → conditioning.
    pub fn forward<E: Engine<Tensor = T>>(&self, e: &E, states: &T, image: &T) -> Result<Conditioning<T>> {
        self.interaction.forward(e, self.qformer.forward(e, states)?, image)
    }
}

impl<T: Clone> Interaction<T> {
    /// The QFormer's output `[batch, 77, q]` and image features `[batch, p, e]` → conditioning.
    pub fn forward<E: Engine<Tensor = T>>(&self, e: &E, text: T, image: &T) -> Result<Conditioning<T>> {
        match self {
            Self::Bim(bim) => {
                let output = bim.forward(e, &text, image)?;
                let weighted = e.scale(&output.text_feature, TEXT_FEATURE_WEIGHT)?;
                let prompt_embeds = e.add(&text, &weighted)?;
                Ok(Conditioning { prompt_embeds, image_feature: Some(output.image_feature) })
            }
            Self::SimpleCa(simple) => {
                Ok(Conditioning { prompt_embeds: simple.forward(e, &text, image)?, image_feature: None })
            }
            Self::Plain => Ok(Conditioning { prompt_embeds: text, image_feature: None }),
        }
    }
}

/// One cross-attention from text to image, with a residual and a norm (paper, section 4.3, *SimpleCA*).
pub struct SimpleCa<T> {
    attention: Attention<T>,
    norm: LayerNorm<T>,
}

impl<T> SimpleCa<T> {
    /// Loads the cross-attention; `text_size` is the width of the QFormer's output.
    pub fn load(
        weights: &Weights<'_, T>,
        config: &SimpleCaConfig,
        text_size: usize,
    ) -> weights::Result<Self> {
        let shape = AttentionShape {
            names: ["q_proj", "k_proj", "v_proj", "out_proj"],
            query_size: text_size,
            key_size: config.vision_size,
            inner_size: text_size,
            heads: config.num_heads,
            biased: true,
        };
        Ok(Self {
            attention: Attention::load(&weights.scope("cross_attn"), &shape)?,
            norm: LayerNorm::load(&weights.scope("norm"), text_size, config.layer_norm_eps)?,
        })
    }

    /// Text `[batch, 77, q]` and image features `[batch, p, e]` → text `[batch, 77, q]`.
    pub fn forward<E: Engine<Tensor = T>>(&self, e: &E, text: &T, image: &T) -> Result<T> {
        let attended = self.attention.forward(e, text, image, image, None)?;
        self.norm.forward(e, &e.add(text, &attended)?)
    }
}
