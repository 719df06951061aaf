//! The UNet as a stage: its session keeps what depends on the conditioning alone.

use super::Run;
use super::call::{Call, Dim};
use crate::engine::Engine;
use crate::model::UnetConfig;
use crate::networks::{PreparedContext, Unet};
use crate::stage::StageError;
use crate::tensor::Tensors;

pub(super) struct Denoise {
    in_channels: usize,
    feature_channels: usize,
    context_size: usize,
}

impl Denoise {
    pub(super) fn new(config: &UnetConfig) -> Self {
        Self {
            in_channels: config.in_channels,
            feature_channels: config.block_channels.first().copied().unwrap_or(0),
            context_size: config.cross_attention_dim,
        }
    }
}

/// The conditioning of an edit.
#[derive(Clone)]
pub(super) struct Prepared<T> {
    context: PreparedContext<T>,
    batch: usize,
    /// As the connector made it.
    feature: Option<T>,
    /// At the height and width of the latents last seen.
    resized: Option<((usize, usize), T)>,
}

impl<E: Engine> Run<E, Unet<E::Tensor>> for Denoise {
    type State = Option<Prepared<E::Tensor>>;

    fn run(
        &self,
        network: &Unet<E::Tensor>,
        state: &mut Self::State,
        call: &Call<'_, E>,
    ) -> Result<Tensors, StageError> {
        if call.has("prompt_embeds") {
            *state = Some(self.prepare(network, call)?);
        }
        let mut outputs = Tensors::new();
        if call.has("sample") {
            let prepared = state.as_mut().ok_or_else(|| {
                call.refuse("prompt_embeds", "must be given before the first step".to_owned())
            })?;
            let noise = self.step(network, prepared, call)?;
            call.output(&mut outputs, "noise_prediction", &noise)?;
        } else if !call.has("prompt_embeds") {
            call.shape("sample")?;
        }
        Ok(outputs)
    }
}

impl Denoise {
    fn prepare<E: Engine>(
        &self,
        network: &Unet<E::Tensor>,
        call: &Call<'_, E>,
    ) -> Result<Prepared<E::Tensor>, StageError> {
        let embeds = call.float("prompt_embeds", &[Dim::Any, Dim::Any, Dim::Is(self.context_size)])?;
        let feature = if call.has("image_feature") {
            let shape = [Dim::Is(1), Dim::Is(self.feature_channels), Dim::Any, Dim::Any];
            Some(call.float("image_feature", &shape)?)
        } else {
            None
        };
        let context = network.prepare(call.engine, &embeds).map_err(|e| call.failed(e))?;
        Ok(Prepared { context, batch: call.shape("prompt_embeds")?[0], feature, resized: None })
    }

    fn step<E: Engine>(
        &self,
        network: &Unet<E::Tensor>,
        prepared: &mut Prepared<E::Tensor>,
        call: &Call<'_, E>,
    ) -> Result<E::Tensor, StageError> {
        let batch = Dim::Is(prepared.batch);
        let sample = call.float("sample", &[batch, Dim::Is(self.in_channels), Dim::Any, Dim::Any])?;
        let timestep = call.float_as_is("timestep", &[batch])?;
        let shape = call.shape("sample")?;
        let size = (shape[2], shape[3]);
        if let Some(feature) = &prepared.feature
            && prepared.resized.as_ref().is_none_or(|(at, _)| *at != size)
        {
            let resized = call.engine.resize_bilinear_like(feature, &sample).map_err(|e| call.failed(e))?;
            prepared.resized = Some((size, resized));
        }
        let feature = prepared.resized.as_ref().map(|(_, feature)| feature);
        network
            .forward(call.engine, &sample, &timestep, &prepared.context, feature)
            .map_err(|e| call.failed(e))
    }
}
