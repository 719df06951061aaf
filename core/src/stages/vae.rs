//! The two halves of the VAE as stages.

use super::Run;
use super::call::{Call, Dim};
use crate::engine::Engine;
use crate::model::VaeConfig;
use crate::networks::{VaeDecoder, VaeEncoder};
use crate::stage::StageError;
use crate::tensor::Tensors;

pub(super) struct Encode {
    image_channels: usize,
    /// By what height and width shrink.
    factor: usize,
}

impl Encode {
    pub(super) fn new(config: &VaeConfig) -> Self {
        Self { image_channels: config.image_channels, factor: config.downsampling() }
    }
}

impl<E: Engine> Run<E, VaeEncoder<E::Tensor>> for Encode {
    type State = ();

    fn run(
        &self,
        network: &VaeEncoder<E::Tensor>,
        (): &mut (),
        call: &Call<'_, E>,
    ) -> Result<Tensors, StageError> {
        let pixels = call.float("image", &[Dim::Any, Dim::Is(self.image_channels), Dim::Any, Dim::Any])?;
        let shape = call.shape("image")?;
        if shape[2..].iter().any(|size| !size.is_multiple_of(self.factor)) {
            let message = format!("has shape {shape:?}; sides must be multiples of {}", self.factor);
            return Err(call.refuse("image", message));
        }
        let latents = network.forward(call.engine, &pixels).map_err(|e| call.failed(e))?;
        let mut outputs = Tensors::new();
        call.output(&mut outputs, "latents", &latents)?;
        Ok(outputs)
    }
}

pub(super) struct Decode {
    latent_channels: usize,
}

impl Decode {
    pub(super) fn new(config: &VaeConfig) -> Self {
        Self { latent_channels: config.latent_channels }
    }
}

impl<E: Engine> Run<E, VaeDecoder<E::Tensor>> for Decode {
    type State = ();

    fn run(
        &self,
        network: &VaeDecoder<E::Tensor>,
        (): &mut (),
        call: &Call<'_, E>,
    ) -> Result<Tensors, StageError> {
        let latents =
            call.float("latents", &[Dim::Any, Dim::Is(self.latent_channels), Dim::Any, Dim::Any])?;
        let pixels = network.forward(call.engine, &latents).map_err(|e| call.failed(e))?;
        let mut outputs = Tensors::new();
        call.output(&mut outputs, "image", &pixels)?;
        Ok(outputs)
    }
}
