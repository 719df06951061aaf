//! A program as the denoiser: it gets the conditioning with every step.

use crate::model::UnetConfig;
use crate::stage::StageError;
use crate::stages::Logic;
use crate::stages::call::Call;
use crate::stages::denoiser::Inputs;
use crate::stages::executor::Executor;
use crate::stages::signature::Function;
use crate::tensor::Tensors;

pub(super) struct Denoise(Inputs);

impl Denoise {
    pub(super) fn new(config: &UnetConfig) -> Self {
        Self(Inputs::new(config))
    }
}

/// The conditioning of an edit.
pub(super) struct Conditioning<V> {
    batch: usize,
    embeds: V,
    feature: Option<V>,
}

impl<X: Executor> Logic<X> for Denoise {
    type State = Option<Conditioning<X::Value>>;

    fn run(&self, state: &mut Self::State, call: &Call<'_, X>) -> Result<Tensors, StageError> {
        if call.has("prompt_embeds") {
            let embeds = call.checked(&self.0.prompt_embeds)?;
            let feature = self.0.feature(call)?;
            let batch = embeds.shape()[0];
            *state = Some(Conditioning { batch, embeds: call.upload(embeds)?, feature });
        }
        let mut outputs = Tensors::new();
        if call.has("sample") || !call.has("prompt_embeds") {
            let batch = state.as_ref().map(|conditioning| conditioning.batch);
            let (sample, timestep) = self.0.step(call, batch)?;
            if let Some(Conditioning { embeds, feature, .. }) = state {
                let (sample, timestep) = (call.upload(sample)?, call.upload(timestep)?);
                let inputs = [Some(&sample), Some(&timestep), Some(&*embeds), feature.as_ref()];
                let noise = call.only(Function::Whole, &inputs)?;
                call.output(&mut outputs, "noise_prediction", &noise)?;
            }
        }
        Ok(outputs)
    }
}
