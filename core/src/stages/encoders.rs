//! The CLIP towers as stages.

use super::Run;
use super::call::{Call, Dim};
use crate::engine::Engine;
use crate::model::{TextConfig, VisionConfig};
use crate::networks::{TextEncoder, VisionEncoder};
use crate::stage::StageError;
use crate::tensor::Tensors;

pub(super) struct Vision {
    image_size: usize,
}

impl Vision {
    pub(super) fn new(config: &VisionConfig) -> Self {
        Self { image_size: config.image_size }
    }
}

impl<E: Engine> Run<E, VisionEncoder<E::Tensor>> for Vision {
    type State = ();

    fn run(
        &self,
        network: &VisionEncoder<E::Tensor>,
        (): &mut (),
        call: &Call<'_, E>,
    ) -> Result<Tensors, StageError> {
        let side = Dim::Is(self.image_size);
        let pixels = call.float("pixel_values", &[Dim::Any, Dim::Is(3), side, side])?;
        let features = network.forward(call.engine, &pixels).map_err(|e| call.failed(e))?;
        let mut outputs = Tensors::new();
        call.output(&mut outputs, "image_features", &features)?;
        Ok(outputs)
    }
}

pub(super) struct Text {
    vocab_size: usize,
    max_positions: usize,
}

impl Text {
    pub(super) fn new(config: &TextConfig) -> Self {
        Self { vocab_size: config.vocab_size, max_positions: config.max_positions }
    }
}

impl<E: Engine> Run<E, TextEncoder<E::Tensor>> for Text {
    type State = ();

    fn run(
        &self,
        network: &TextEncoder<E::Tensor>,
        (): &mut (),
        call: &Call<'_, E>,
    ) -> Result<Tensors, StageError> {
        let ids = call.ids("input_ids", &[Dim::Any, Dim::Is(self.max_positions)], self.vocab_size)?;
        let states = call
            .engine
            .upload(&ids.into())
            .and_then(|ids| network.forward(call.engine, &ids))
            .map_err(|e| call.failed(e))?;
        let mut outputs = Tensors::new();
        call.output(&mut outputs, "hidden_states", &states)?;
        Ok(outputs)
    }
}
