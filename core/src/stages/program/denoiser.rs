//! A program as the denoiser: it gets the conditioning with every step.

use crate::model::UnetConfig;
use crate::stage::StageError;
use crate::stages::Logic;
use crate::stages::call::Call;
use crate::stages::executor::Executor;
use crate::stages::signature::{self, Function, Port};
use crate::tensor::Tensors;

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
pub(super) struct Conditioning<V> {
    batch: usize,
    embeds: V,
    feature: Option<V>,
}

impl<X: Executor> Logic<X> for Denoise {
    type State = Option<Conditioning<X::Value>>;

    fn run(&self, state: &mut Self::State, call: &Call<'_, X>) -> Result<Tensors, StageError> {
        if call.has("prompt_embeds") {
            let embeds = call.checked(&self.prompt_embeds)?;
            let feature =
                if call.has("image_feature") { Some(call.input(&self.image_feature)?) } else { None };
            let batch = embeds.shape()[0];
            *state = Some(Conditioning { batch, embeds: call.upload(embeds)?, feature });
        }
        let mut outputs = Tensors::new();
        if call.has("sample") || !call.has("prompt_embeds") {
            let sample = call.checked(&self.sample)?;
            let timestep = call.checked(&self.timestep)?;
            let conditioning = state.as_ref().ok_or_else(|| {
                call.refuse("prompt_embeds", "must be given before the first step".to_owned())
            })?;
            for (name, found) in [("sample", sample.shape()[0]), ("timestep", timestep.shape()[0])] {
                if found != conditioning.batch {
                    let needed = conditioning.batch;
                    let message = format!("is a batch of {found}; the conditioning is one of {needed}");
                    return Err(call.refuse(name, message));
                }
            }
            let (sample, timestep) = (call.upload(sample)?, call.upload(timestep)?);
            let feature = conditioning.feature.as_ref();
            let inputs = [Some(&sample), Some(&timestep), Some(&conditioning.embeds), feature];
            let noise = call.only(Function::Whole, &inputs)?;
            call.output(&mut outputs, "noise_prediction", &noise)?;
        }
        Ok(outputs)
    }
}
