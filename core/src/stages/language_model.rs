//! LLaMA as a stage: its session keeps keys and values of everything it was fed.

use std::sync::Arc;

use ndarray::{Array2, ArrayView2, Ix2, s};

use super::Logic;
use super::call::Call;
use super::executor::Executor;
use super::signature::{self, Function, Port};
use crate::model::LlamaConfig;
use crate::networks::{causal_mask, rotary_tables};
use crate::stage::StageError;
use crate::tensor::{HostTensor, Tensors};

pub(super) struct Llama {
    config: LlamaConfig,
    input_ids: Port,
    image_features: Port,
}

impl Llama {
    pub(super) fn new(config: &LlamaConfig) -> Self {
        Self {
            config: config.clone(),
            input_ids: signature::tokens(config, "input_ids", "tokens"),
            image_features: signature::image_features(config),
        }
    }
}

/// Keys and values of the positions fed so far.
pub(super) struct Cache<V> {
    /// A key and a value of each layer `[1, heads, length, d]`; empty if nothing was fed.
    layers: Arc<Vec<V>>,
    length: usize,
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Self { layers: Arc::default(), length: 0 }
    }
}

/// What one call feeds, on the device.
struct Fed<V> {
    before: Option<V>,
    features: Option<V>,
    after: Option<V>,
    count: usize,
}

impl<X: Executor> Logic<X> for Llama {
    type State = Cache<X::Value>;

    fn run(&self, cache: &mut Self::State, call: &Call<'_, X>) -> Result<Tensors, StageError> {
        let ids = self.ids(call)?;
        if let Some(length) = call.index("cache_length")? {
            if length > cache.length {
                let message = format!("is {length}; only {} positions were fed", cache.length);
                return Err(call.refuse("cache_length", message));
            }
            cache.cut(call, length)?;
        }
        let fed = self.fed(call, ids)?;
        let total = cache.length + fed.count;
        if total > self.config.max_positions {
            let message = format!("makes {total} positions; the model has {}", self.config.max_positions);
            return Err(call.refuse("input_ids", message));
        }
        let logits_from = call.index("logits_from")?.unwrap_or(0);
        if logits_from >= fed.count {
            let message = format!("is {logits_from}; {} positions are fed", fed.count);
            return Err(call.refuse("logits_from", message));
        }

        let states = self.forward(cache, &fed, call)?;
        let wanted = call.narrow(&states, 1, logits_from, fed.count - logits_from)?;
        let logits = call.only(Function::Logits, &[Some(&wanted)])?;
        let mut outputs = Tensors::new();
        call.output(&mut outputs, "hidden_states", &states)?;
        call.output(&mut outputs, "logits", &logits)?;
        Ok(outputs)
    }

    fn fork(&self, cache: &Self::State) -> Option<Self::State> {
        Some(Cache { layers: cache.layers.clone(), length: cache.length })
    }
}

impl Llama {
    fn ids<'a, X: Executor>(&self, call: &Call<'a, X>) -> Result<ArrayView2<'a, i64>, StageError> {
        let refuse = || call.refuse("input_ids", "must be whole numbers in two dimensions".to_owned());
        match call.checked(&self.input_ids)? {
            HostTensor::I64(ids) => ids.view().into_dimensionality::<Ix2>().map_err(|_| refuse()),
            HostTensor::F32(_) => Err(refuse()),
        }
    }

    /// The tokens of a call, with the image features among them where they are given.
    fn fed<X: Executor>(
        &self,
        call: &Call<'_, X>,
        ids: ArrayView2<'_, i64>,
    ) -> Result<Fed<X::Value>, StageError> {
        let tokens = ids.ncols();
        let upload = |ids: ArrayView2<'_, i64>| {
            if ids.is_empty() { Ok(None) } else { call.upload(&ids.to_owned().into()).map(Some) }
        };
        if !call.has("image_features") {
            return Ok(Fed { before: upload(ids)?, features: None, after: None, count: tokens });
        }
        let features = call.checked(&self.image_features)?;
        let position = call.index("image_position")?.unwrap_or(0);
        if position > tokens {
            let message = format!("is {position}; there are {tokens} tokens");
            return Err(call.refuse("image_position", message));
        }
        Ok(Fed {
            before: upload(ids.slice(s![.., ..position]))?,
            features: Some(call.upload(features)?),
            after: upload(ids.slice(s![.., position..]))?,
            count: tokens + features.shape()[1],
        })
    }

    /// States of what is fed; its keys and values join the cache.
    fn forward<X: Executor>(
        &self,
        cache: &mut Cache<X::Value>,
        fed: &Fed<X::Value>,
        call: &Call<'_, X>,
    ) -> Result<X::Value, StageError> {
        let (cos, sin) = rotary_tables(&self.config, cache.length, fed.count);
        let mask = causal_mask(cache.length, fed.count);
        let upload = |array: Array2<f32>| call.upload(&array.into());
        let (cos, sin, mask) = (upload(cos)?, upload(sin)?, upload(mask)?);
        let mut inputs = vec![fed.before.as_ref(), fed.features.as_ref(), fed.after.as_ref()];
        inputs.extend([Some(&cos), Some(&sin), Some(&mask)]);
        if cache.layers.is_empty() {
            inputs.resize(inputs.len() + 2 * self.config.num_layers, None);
        } else {
            inputs.extend(cache.layers.iter().map(Some));
        }
        let mut outputs = call.function(Function::Forward, &inputs)?.into_iter();
        let states = call.given(Function::Forward, outputs.next())?;
        cache.layers = Arc::new(outputs.collect());
        cache.length += fed.count;
        Ok(states)
    }
}

impl<V> Cache<V> {
    fn cut<X: Executor<Value = V>>(&mut self, call: &Call<'_, X>, length: usize) -> Result<(), StageError> {
        if length == 0 {
            *self = Self::default();
        } else if length < self.length {
            let cut = |layer: &V| call.narrow(layer, 2, 0, length);
            self.layers = Arc::new(self.layers.iter().map(cut).collect::<Result<_, _>>()?);
            self.length = length;
        }
        Ok(())
    }
}
