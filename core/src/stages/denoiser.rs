//! The UNet as a stage: its session keeps what depends on the conditioning alone.

use super::Logic;
use super::call::Call;
use super::executor::Executor;
use super::signature::{self, Function, Port};
use crate::model::UnetConfig;
use crate::stage::StageError;
use crate::tensor::{HostTensor, Tensors};

pub(super) struct Denoise {
    prompt_embeds: Port,
    image_feature: Port,
    sample: Port,
    timestep: Port,
}

impl Denoise {
    pub(super) fn new(config: &UnetConfig) -> Self {
        Self {
            prompt_embeds: signature::prompt_embeds(config),
            image_feature: signature::image_feature(config),
            sample: signature::sample(config),
            timestep: signature::timestep(),
        }
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
            let sample = call.checked(&self.sample)?;
            let prepared = state.as_mut().ok_or_else(|| {
                call.refuse("prompt_embeds", "must be given before the first step".to_owned())
            })?;
            let noise = self.step(prepared, sample, call)?;
            call.output(&mut outputs, "noise_prediction", &noise)?;
        }
        Ok(outputs)
    }
}

impl Denoise {
    fn prepare<X: Executor>(&self, call: &Call<'_, X>) -> Result<Prepared<X::Value>, StageError> {
        let embeds = call.checked(&self.prompt_embeds)?;
        let feature = if call.has("image_feature") { Some(call.input(&self.image_feature)?) } else { None };
        let context = call.function(Function::Prepare, &[Some(&call.upload(embeds)?)])?;
        Ok(Prepared { context, batch: embeds.shape()[0], feature, resized: None })
    }

    fn step<X: Executor>(
        &self,
        prepared: &mut Prepared<X::Value>,
        sample: &HostTensor,
        call: &Call<'_, X>,
    ) -> Result<X::Value, StageError> {
        let size = (sample.shape()[2], sample.shape()[3]);
        let timestep = call.checked(&self.timestep)?;
        for (name, tensor) in [("sample", sample), ("timestep", timestep)] {
            let (found, needed) = (tensor.shape()[0], prepared.batch);
            if found != needed {
                let message = format!("is a batch of {found}; the conditioning is one of {needed}");
                return Err(call.refuse(name, message));
            }
        }
        let (sample, timestep) = (call.upload(sample)?, call.upload(timestep)?);
        if let Some(feature) = &prepared.feature
            && prepared.resized.as_ref().is_none_or(|(at, _)| *at != size)
        {
            let resized = call.only(Function::ResizeFeature, &[Some(feature), Some(&sample)])?;
            prepared.resized = Some((size, resized));
        }
        let feature = prepared.resized.as_ref().map(|(_, feature)| feature);
        let mut inputs = vec![Some(&sample), Some(&timestep), feature];
        inputs.extend(prepared.context.iter().map(Some));
        call.only(Function::Step, &inputs)
    }
}
