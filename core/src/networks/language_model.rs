//! LLaMA with the projector of image features into its width.

use ndarray::Array2;

use super::layers::{KeyValue, Linear, head_dim};
use crate::engine::{Engine, Result};
use crate::model::LlamaConfig;
use crate::weights::{self, Weights};

/// Embedding table, projector, decoder layers and head.
pub struct LanguageModel<T> {
    embed_tokens: T,
    mm_projector: Linear<T>,
    layers: Vec<Layer<T>>,
    norm: RmsNorm<T>,
    lm_head: Linear<T>,
}

/// What a forward pass over new positions depends on besides their embeddings.
pub struct Positions<T> {
    /// Cosines of the rotary embedding, `[n, d]`.
    pub cos: T,
    /// Sines of the rotary embedding, `[n, d]`.
    pub sin: T,
    /// Added to attention scores, `[n, past + n]`.
    pub mask: T,
}

impl<T> LanguageModel<T> {
    /// Loads the model.
    pub fn load(weights: &Weights<'_, T>, config: &LlamaConfig) -> weights::Result<Self> {
        let (vocab, size) = (config.vocab_size, config.hidden_size);
        let layers = (0..config.num_layers)
            .map(|index| Layer::load(&weights.scope("layers").scope(index), config))
            .collect::<weights::Result<_>>()?;
        Ok(Self {
            embed_tokens: weights.tensor("embed_tokens.weight", &[vocab, size])?,
            mm_projector: Linear::load(&weights.scope("mm_projector"), config.vision_size, size)?,
            layers,
            norm: RmsNorm::load(&weights.scope("norm"), size, config.rms_norm_eps)?,
            lm_head: Linear::load_unbiased(&weights.scope("lm_head"), size, vocab)?,
        })
    }

    /// Token ids `[1, n]` → embeddings `[1, n, h]`.
    pub fn embed<E: Engine<Tensor = T>>(&self, e: &E, ids: &T) -> Result<T> {
        e.embedding(&self.embed_tokens, ids)
    }

    /// Image features `[1, p, e]` → embeddings `[1, p, h]`.
    pub fn project<E: Engine<Tensor = T>>(&self, e: &E, features: &T) -> Result<T> {
        self.mm_projector.forward(e, features)
    }

    /// Embeddings of new positions `[1, n, h]` → their states after the final norm `[1, n, h]`, and the keys and
    /// values of all positions so far.
    pub fn forward<E: Engine<Tensor = T>>(
        &self,
        e: &E,
        embeddings: T,
        positions: &Positions<T>,
        past: Option<&[KeyValue<T>]>,
    ) -> Result<(T, Vec<KeyValue<T>>)> {
        let mut cache = Vec::with_capacity(self.layers.len());
        let mut x = embeddings;
        for (index, layer) in self.layers.iter().enumerate() {
            let past = past.and_then(|past| past.get(index));
            let (next, key_value) = layer.forward(e, &x, positions, past)?;
            x = next;
            cache.push(key_value);
        }
        Ok((self.norm.forward(e, &x)?, cache))
    }

    /// States after the final norm `[1, n, h]` → logits `[1, n, v]`.
    pub fn logits<E: Engine<Tensor = T>>(&self, e: &E, states: &T) -> Result<T> {
        self.lm_head.forward(e, states)
    }
}

/// Cosines and sines of the rotary embedding, `[length, d]` each, of positions from `start` on.
pub fn rotary_tables(config: &LlamaConfig, start: usize, length: usize) -> (Array2<f32>, Array2<f32>) {
    let head_dim = config.hidden_size.checked_div(config.num_heads).unwrap_or(0);
    let half = (head_dim / 2).max(1);
    let angle = |(row, column): (usize, usize)| {
        let exponent = (2 * (column % half)) as f32 / head_dim as f32;
        (start + row) as f32 * (1.0 / (config.rope_theta as f32).powf(exponent))
    };
    let angles = Array2::from_shape_fn((length, head_dim), angle);
    (angles.mapv(f32::cos), angles.mapv(f32::sin))
}

struct RmsNorm<T> {
    weight: T,
    eps: f64,
}

impl<T> RmsNorm<T> {
    fn load(weights: &Weights<'_, T>, size: usize, eps: f64) -> weights::Result<Self> {
        Ok(Self { weight: weights.tensor("weight", &[size])?, eps })
    }

    fn forward<E: Engine<Tensor = T>>(&self, e: &E, x: &T) -> Result<T> {
        e.rms_norm(x, &self.weight, self.eps)
    }
}

struct Layer<T> {
    input_norm: RmsNorm<T>,
    attention: RotaryAttention<T>,
    post_attention_norm: RmsNorm<T>,
    mlp: GatedMlp<T>,
}

impl<T> Layer<T> {
    fn load(weights: &Weights<'_, T>, config: &LlamaConfig) -> weights::Result<Self> {
        let (size, eps) = (config.hidden_size, config.rms_norm_eps);
        Ok(Self {
            input_norm: RmsNorm::load(&weights.scope("input_layernorm"), size, eps)?,
            attention: RotaryAttention::load(&weights.scope("self_attn"), config)?,
            post_attention_norm: RmsNorm::load(&weights.scope("post_attention_layernorm"), size, eps)?,
            mlp: GatedMlp::load(&weights.scope("mlp"), config)?,
        })
    }

    fn forward<E: Engine<Tensor = T>>(
        &self,
        e: &E,
        x: &T,
        positions: &Positions<T>,
        past: Option<&KeyValue<T>>,
    ) -> Result<(T, KeyValue<T>)> {
        let normed = self.input_norm.forward(e, x)?;
        let (attended, key_value) = self.attention.forward(e, &normed, positions, past)?;
        let x = e.add(x, &attended)?;
        let normed = self.post_attention_norm.forward(e, &x)?;
        Ok((e.add(&x, &self.mlp.forward(e, &normed)?)?, key_value))
    }
}

struct RotaryAttention<T> {
    query: Linear<T>,
    key: Linear<T>,
    value: Linear<T>,
    out: Linear<T>,
    heads: usize,
    head_dim: usize,
}

impl<T> RotaryAttention<T> {
    fn load(weights: &Weights<'_, T>, config: &LlamaConfig) -> weights::Result<Self> {
        let size = config.hidden_size;
        let load = |name: &str| Linear::load_unbiased(&weights.scope(name), size, size);
        Ok(Self {
            query: load("q_proj")?,
            key: load("k_proj")?,
            value: load("v_proj")?,
            out: load("o_proj")?,
            heads: config.num_heads,
            head_dim: head_dim(size, config.num_heads)?,
        })
    }

    fn forward<E: Engine<Tensor = T>>(
        &self,
        e: &E,
        x: &T,
        positions: &Positions<T>,
        past: Option<&KeyValue<T>>,
    ) -> Result<(T, KeyValue<T>)> {
        let rotate = |x: &T| e.rotary(x, self.head_dim, &positions.cos, &positions.sin);
        let query = rotate(&e.split_heads(&self.query.forward(e, x)?, self.heads)?)?;
        let mut key = rotate(&e.split_heads(&self.key.forward(e, x)?, self.heads)?)?;
        let mut value = e.split_heads(&self.value.forward(e, x)?, self.heads)?;
        if let Some(past) = past {
            key = e.concat(&[&past.key, &key], 2)?;
            value = e.concat(&[&past.value, &value], 2)?;
        }
        let scale = (self.head_dim as f64).powf(-0.5);
        let attended = e.attention(&query, &key, &value, scale, Some(&positions.mask))?;
        Ok((self.out.forward(e, &e.merge_heads(&attended)?)?, KeyValue { key, value }))
    }
}

struct GatedMlp<T> {
    gate: Linear<T>,
    up: Linear<T>,
    down: Linear<T>,
}

impl<T> GatedMlp<T> {
    fn load(weights: &Weights<'_, T>, config: &LlamaConfig) -> weights::Result<Self> {
        let (size, inner) = (config.hidden_size, config.intermediate_size);
        Ok(Self {
            gate: Linear::load_unbiased(&weights.scope("gate_proj"), size, inner)?,
            up: Linear::load_unbiased(&weights.scope("up_proj"), size, inner)?,
            down: Linear::load_unbiased(&weights.scope("down_proj"), inner, size)?,
        })
    }

    fn forward<E: Engine<Tensor = T>>(&self, e: &E, x: &T) -> Result<T> {
        let gate = e.silu(&self.gate.forward(e, x)?)?;
        self.down.forward(e, &e.mul(&gate, &self.up.forward(e, x)?)?)
    }
}
