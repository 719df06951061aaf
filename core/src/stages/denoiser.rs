//! The UNet as a stage: its session keeps what depends on the conditioning alone.

use super::Logic;
use super::call::Call;
use super::executor::Executor;
use super::signature::{self, Function, Port};
use crate::model::UnetConfig;
use crate::stage::StageError;
use crate::tensor::{HostTensor, Tensors};

/// What a denoiser is given: the conditioning once, the rest with each step.
pub(super) struct Inputs {
    pub(super) prompt_embeds: Port,
    image_feature: Port,
    sample: Port,
    timestep: Port,
}

impl Inputs {
    pub(super) fn new(config: &UnetConfig) -> Self {
        Self {
            prompt_embeds: signature::prompt_embeds(config),
            image_feature: signature::image_feature(config),
            sample: signature::sample(config),
            timestep: signature::timestep(),
        }
    }

    /// The connector's feature, if it is given.
    pub(super) fn feature<X: Executor>(&self, call: &Call<'_, X>) -> Result<Option<X::Value>, StageError> {
        if call.has("image_feature") { call.input(&self.image_feature).map(Some) } else { Ok(None) }
    }

    /// Sample and timestep of a step; `batch` is the conditioning's, if there is one.
    pub(super) fn step<'a, X: Executor>(
        &self,
        call: &Call<'a, X>,
        batch: Option<usize>,
    ) -> Result<(&'a HostTensor, &'a HostTensor), StageError> {
        let sample = call.checked(&self.sample)?;
        let needed = batch
            .ok_or_else(|| call.refuse("prompt_embeds", "must be given before the first step".to_owned()))?;
        let timestep = call.checked(&self.timestep)?;
        for (name, tensor) in [("sample", sample), ("timestep", timestep)] {
            let found = tensor.shape()[0];
            if found != needed {
                let message = format!("is a batch of {found}; the conditioning is one of {needed}");
                return Err(call.refuse(name, message));
            }
        }
        Ok((sample, timestep))
    }
}

pub(super) struct Denoise(Inputs);

impl Denoise {
    pub(super) fn new(config: &UnetConfig) -> Self {
        Self(Inputs::new(config))
    }
}

/// The conditioning of an edit.
pub(super) struct Prepared<V> {
    context: Vec<V>,
    batch: usize,
    /// As the connector made it.
    feature: Option<V>,
    /// At the height and width of the latents last seen.
    resized: Option<((usize, usize), V)>,
}

impl<X: Executor> Logic<X> for Denoise {
    type State = Option<Prepared<X::Value>>;

    fn run(&self, state: &mut Self::State, call: &Call<'_, X>) -> Result<Tensors, StageError> {
        if call.has("prompt_embeds") {
            *state = Some(self.prepare(call)?);
        }
        let mut outputs = Tensors::new();
        if call.has("sample") || !call.has("prompt_embeds") {
            let (sample, timestep) = self.0.step(call, state.as_ref().map(|prepared| prepared.batch))?;
            if let Some(prepared) = state {
                let noise = prepared.step(call, sample, timestep)?;
                call.output(&mut outputs, "noise_prediction", &noise)?;
            }
        }
        Ok(outputs)
    }
}

impl Denoise {
    fn prepare<X: Executor>(&self, call: &Call<'_, X>) -> Result<Prepared<X::Value>, StageError> {
        let embeds = call.checked(&self.0.prompt_embeds)?;
        let feature = self.0.feature(call)?;
        let context = call.function(Function::Prepare, &[Some(&call.upload(embeds)?)])?;
        Ok(Prepared { context, batch: embeds.shape()[0], feature, resized: None })
    }
}

impl<V> Prepared<V> {
    fn step<X: Executor<Value = V>>(
        &mut self,
        call: &Call<'_, X>,
        sample: &HostTensor,
        timestep: &HostTensor,
    ) -> Result<V, StageError> {
        let size = (sample.shape()[2], sample.shape()[3]);
        let (sample, timestep) = (call.upload(sample)?, call.upload(timestep)?);
        if let Some(feature) = &self.feature
            && self.resized.as_ref().is_none_or(|(at, _)| *at != size)
        {
            let resized = call.only(Function::ResizeFeature, &[Some(feature), Some(&sample)])?;
            self.resized = Some((size, resized));
        }
        let feature = self.resized.as_ref().map(|(_, feature)| feature);
        let mut inputs = vec![Some(&sample), Some(&timestep), feature];
        inputs.extend(self.context.iter().map(Some));
        call.only(Function::Step, &inputs)
    }
}
