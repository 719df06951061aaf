//! LLaMA as a stage: its session keeps keys and values of everything it was fed.

use ndarray::{Array2, s};

use super::Run;
use super::call::{Call, Dim};
use crate::engine::{self, Engine};
use crate::model::LlamaConfig;
use crate::networks::{KeyValue, LanguageModel, Positions, causal_mask};
use crate::stage::StageError;
use crate::tensor::Tensors;

pub(super) struct Llama {
    vocab_size: usize,
    vision_size: usize,
    max_positions: usize,
}

impl Llama {
    pub(super) fn new(config: &LlamaConfig) -> Self {
        Self {
            vocab_size: config.vocab_size,
            vision_size: config.vision_size,
            max_positions: config.max_positions,
        }
    }
}

/// Keys and values of the positions fed so far.
#[derive(Clone)]
pub(super) struct Cache<T> {
    layers: Option<Vec<KeyValue<T>>>,
    length: usize,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self { layers: None, length: 0 }
    }
}

impl<E: Engine> Run<E, LanguageModel<E::Tensor>> for Llama {
    type State = Cache<E::Tensor>;

    fn run(
        &self,
        network: &LanguageModel<E::Tensor>,
        cache: &mut Self::State,
        call: &Call<'_, E>,
    ) -> Result<Tensors, StageError> {
        let e = call.engine;
        let ids = call.ids("input_ids", &[Dim::Is(1), Dim::Any], self.vocab_size)?;
        if let Some(length) = call.index("cache_length")? {
            if length > cache.length {
                let message = format!("is {length}; only {} positions were fed", cache.length);
                return Err(call.refuse("cache_length", message));
            }
            cache.cut(e, length).map_err(|e| call.failed(e))?;
        }
        let (embeddings, count) = self.embed(network, call, &ids)?;
        if cache.length + count > self.max_positions {
            let total = cache.length + count;
            let message = format!("makes {total} positions; the model has {}", self.max_positions);
            return Err(call.refuse("input_ids", message));
        }
        let logits_from = call.index("logits_from")?.unwrap_or(0);
        if logits_from >= count {
            let message = format!("is {logits_from}; {count} positions are fed");
            return Err(call.refuse("logits_from", message));
        }

        let (states, logits) = self
            .forward(network, e, cache, embeddings, count, logits_from)
            .map_err(|source| call.failed(source))?;
        let mut outputs = Tensors::new();
        call.output(&mut outputs, "hidden_states", &states)?;
        call.output(&mut outputs, "logits", &logits)?;
        Ok(outputs)
    }
}

impl Llama {
    /// Embeddings of the tokens, with the image features spliced in where they are given, and their number.
    fn embed<E: Engine>(
        &self,
        network: &LanguageModel<E::Tensor>,
        call: &Call<'_, E>,
        ids: &Array2<i64>,
    ) -> Result<(E::Tensor, usize), StageError> {
        let e = call.engine;
        let embed = |ids: Array2<i64>| e.upload(&ids.into()).and_then(|ids| network.embed(e, &ids));
        let failed = |source| call.failed(source);
        let tokens = ids.ncols();
        if !call.has("image_features") {
            return Ok((embed(ids.clone()).map_err(failed)?, tokens));
        }
        let features = call.float("image_features", &[Dim::Is(1), Dim::Any, Dim::Is(self.vision_size)])?;
        let position = call.index("image_position")?.unwrap_or(0);
        if position > tokens {
            let message = format!("is {position}; there are {tokens} tokens");
            return Err(call.refuse("image_position", message));
        }
        let count = tokens + call.shape("image_features")?[1];
        let spliced = || {
            let mut parts = Vec::with_capacity(3);
            if position > 0 {
                parts.push(embed(ids.slice(s![.., ..position]).to_owned())?);
            }
            parts.push(network.project(e, &features)?);
            if position < tokens {
                parts.push(embed(ids.slice(s![.., position..]).to_owned())?);
            }
            e.concat(&parts.iter().collect::<Vec<_>>(), 1)
        };
        Ok((spliced().map_err(failed)?, count))
    }

    fn forward<E: Engine>(
        &self,
        network: &LanguageModel<E::Tensor>,
        e: &E,
        cache: &mut Cache<E::Tensor>,
        embeddings: E::Tensor,
        count: usize,
        logits_from: usize,
    ) -> engine::Result<(E::Tensor, E::Tensor)> {
        let (cos, sin) = network.rotary_tables(cache.length, count);
        let upload = |array: Array2<f32>| e.upload(&array.into()).and_then(|tensor| e.cast(&tensor));
        let positions = Positions {
            cos: upload(cos)?,
            sin: upload(sin)?,
            mask: upload(causal_mask(cache.length, count))?,
        };
        let (states, layers) = network.forward(e, embeddings, &positions, cache.layers.as_deref())?;
        let wanted = e.narrow(&states, 1, logits_from, count - logits_from)?;
        let logits = network.logits(e, &wanted)?;
        cache.layers = Some(layers);
        cache.length += count;
        Ok((states, logits))
    }
}

impl<T> Cache<T> {
    fn cut<E: Engine<Tensor = T>>(&mut self, e: &E, length: usize) -> engine::Result<()> {
        if length == self.length {
            return Ok(());
        }
        self.layers = match self.layers.take() {
            Some(layers) if length > 0 => {
                let cut = |layer: KeyValue<T>| {
                    engine::Result::Ok(KeyValue {
                        key: e.narrow(&layer.key, 2, 0, length)?,
                        value: e.narrow(&layer.value, 2, 0, length)?,
                    })
                };
                Some(layers.into_iter().map(cut).collect::<engine::Result<_>>()?)
            }
            _ => None,
        };
        self.length = length;
        Ok(())
    }
}
