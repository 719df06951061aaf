//! QFormer and BIM as a stage.

use super::Run;
use super::call::{Call, Dim};
use crate::engine::Engine;
use crate::model::{ConnectorConfig, IMAGE_TOKENS, InteractionConfig};
use crate::networks::Connector;
use crate::stage::StageError;
use crate::tensor::Tensors;

pub(super) struct Connect {
    states_size: usize,
    /// Number and width of the image features that the interaction needs.
    features: (Dim, Dim),
}

impl Connect {
    pub(super) fn new(config: &ConnectorConfig) -> Self {
        let features = match &config.interaction {
            InteractionConfig::Bim(bim) => (Dim::Is(bim.grid_size.pow(2)), Dim::Is(bim.vision_size)),
            InteractionConfig::SimpleCa(simple) => (Dim::Any, Dim::Is(simple.vision_size)),
            InteractionConfig::Plain => (Dim::Any, Dim::Any),
        };
        Self { states_size: config.qformer.encoder_width, features }
    }
}

impl<E: Engine> Run<E, Connector<E::Tensor>> for Connect {
    type State = ();

    fn run(
        &self,
        network: &Connector<E::Tensor>,
        (): &mut (),
        call: &Call<'_, E>,
    ) -> Result<Tensors, StageError> {
        let states =
            call.float("image_states", &[Dim::Any, Dim::Is(IMAGE_TOKENS), Dim::Is(self.states_size)])?;
        let features = call.float("image_features", &[Dim::Any, self.features.0, self.features.1])?;
        let conditioning = network.forward(call.engine, &states, &features).map_err(|e| call.failed(e))?;
        let mut outputs = Tensors::new();
        call.output(&mut outputs, "prompt_embeds", &conditioning.prompt_embeds)?;
        if let Some(feature) = &conditioning.image_feature {
            call.output(&mut outputs, "image_feature", feature)?;
        }
        Ok(outputs)
    }
}
