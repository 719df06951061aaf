//! QFormer: learned queries that read the states of the image tokens.

use super::layers::{Attention, AttentionShape, LayerNorm, Linear};
use crate::engine::{Engine, Result};
use crate::model::QFormerConfig;
use crate::weights::{self, Weights};

/// A post-norm BERT stack over learned queries, without token or position embeddings.
pub struct QFormer<T> {
    query_tokens: T,
    norm: LayerNorm<T>,
    layers: Vec<Layer<T>>,
}

impl<T> QFormer<T> {
    /// Loads `query_tokens` and `qformer.*`.
    pub fn load(weights: &Weights<'_, T>, config: &QFormerConfig) -> weights::Result<Self> {
        let scope = weights.scope("qformer");
        let queries = &[1, config.num_queries, config.hidden_size];
        if config.cross_attention_frequency == 0 {
            return Err(weights::WeightsError::Config("cross_attention_frequency is 0".to_owned()));
        }
        let layers = (0..config.num_layers)
            .map(|index| {
                let cross = index.is_multiple_of(config.cross_attention_frequency);
                Layer::load(&scope.scope("encoder.layer").scope(index), config, cross)
            })
            .collect::<weights::Result<_>>()?;
        Ok(Self {
            query_tokens: weights.tensor("query_tokens", queries)?,
            norm: LayerNorm::load(
                &scope.scope("embeddings.LayerNorm"),
                config.hidden_size,
                config.layer_norm_eps,
            )?,
            layers,
        })
    }

    /// States of the image tokens `[batch, 32, h]` → `[batch, 77, q]`.
    pub fn forward<E: Engine<Tensor = T>>(&self, e: &E, states: &T) -> Result<T> {
        let queries = e.broadcast_batch_like(&self.query_tokens, states)?;
        let x = self.norm.forward(e, &queries)?;
        self.layers.iter().try_fold(x, |x, layer| layer.forward(e, x, states))
    }
}

struct Layer<T> {
    attention: Attention<T>,
    attention_norm: LayerNorm<T>,
    cross_attention: Option<(Attention<T>, LayerNorm<T>)>,
    intermediate: Linear<T>,
    output: Linear<T>,
    output_norm: LayerNorm<T>,
}

impl<T> Layer<T> {
    fn load(weights: &Weights<'_, T>, config: &QFormerConfig, cross: bool) -> weights::Result<Self> {
        let (size, inner, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let attention = |name: &str, key_size| {
            let scope = weights.scope(name);
            let shape = AttentionShape {
                names: ["self.query", "self.key", "self.value", "output.dense"],
                query_size: size,
                key_size,
                inner_size: size,
                heads: config.num_heads,
                biased: true,
            };
            let norm = LayerNorm::load(&scope.scope("output.LayerNorm"), size, eps)?;
            weights::Result::Ok((Attention::load(&scope, &shape)?, norm))
        };
        let (self_attention, attention_norm) = attention("attention", size)?;
        let cross_attention =
            if cross { Some(attention("crossattention", config.encoder_width)?) } else { None };
        Ok(Self {
            attention: self_attention,
            attention_norm,
            cross_attention,
            intermediate: Linear::load(&weights.scope("intermediate_query.dense"), size, inner)?,
            output: Linear::load(&weights.scope("output_query.dense"), inner, size)?,
            output_norm: LayerNorm::load(&weights.scope("output_query.LayerNorm"), size, eps)?,
        })
    }

    fn forward<E: Engine<Tensor = T>>(&self, e: &E, x: T, states: &T) -> Result<T> {
        let attended = self.attention.to_itself(e, &x, None)?;
        let mut x = self.attention_norm.forward(e, &e.add(&x, &attended)?)?;
        if let Some((attention, norm)) = &self.cross_attention {
            let attended = attention.forward(e, &x, states, states, None)?;
            x = norm.forward(e, &e.add(&x, &attended)?)?;
        }
        let hidden = e.gelu(&self.intermediate.forward(e, &x)?)?;
        self.output_norm.forward(e, &e.add(&x, &self.output.forward(e, &hidden)?)?)
    }
}
