//! A program as the language model: it gets everything that was fed so far, every time.

use ndarray::{Array1, ArrayD, Axis, Slice};

use crate::model::LlamaConfig;
use crate::stage::StageError;
use crate::stages::Logic;
use crate::stages::call::Call;
use crate::stages::executor::Executor;
use crate::stages::signature::{self, Function, Port};
use crate::tensor::{HostTensor, Tensors};

/// The first position whose logits are wanted.
pub(super) const LOGITS_FROM: &str = "logits_from";

/// What [`LOGITS_FROM`] says among the inputs in their order; of another stage, 0.
pub(super) fn wanted_from(inputs: &[Option<&HostTensor>]) -> usize {
    match inputs.get(3) {
        Some(Some(HostTensor::I64(from))) => {
            from.first().map_or(0, |&from| usize::try_from(from).unwrap_or(0))
        }
        _ => 0,
    }
}

pub(super) struct Recompute {
    max_positions: usize,
    input_ids: Port,
    image_features: Port,
}

impl Recompute {
    pub(super) fn new(config: &LlamaConfig) -> Self {
        Self {
            max_positions: config.max_positions,
            input_ids: signature::tokens(config, "input_ids", "tokens"),
            image_features: signature::image_features(config),
        }
    }
}

/// What was fed so far.
#[derive(Clone, Default)]
pub(super) struct Fed {
    ids: Vec<i64>,
    /// Image features `[1, p, e]`, and the token before which they stand.
    image: Option<(ArrayD<f32>, usize)>,
}

impl Fed {
    fn features(&self) -> usize {
        self.image.as_ref().map_or(0, |(features, _)| features.shape()[1])
    }

    fn positions(&self) -> usize {
        self.ids.len() + self.features()
    }

    /// Forgets all positions from `length` on.
    fn cut(&mut self, length: usize) {
        let (features, position) = match &self.image {
            Some((_, position)) => (self.features(), *position),
            None => (0, length),
        };
        let kept = length.saturating_sub(position).min(features);
        if kept == 0 {
            self.image = None;
        } else if let Some((features, _)) = &mut self.image {
            *features = features.slice_axis(Axis(1), Slice::from(..kept)).to_owned();
        }
        self.ids.truncate(length - kept);
    }
}

impl<X: Executor> Logic<X> for Recompute {
    type State = Fed;

    fn run(&self, state: &mut Fed, call: &Call<'_, X>) -> Result<Tensors, StageError> {
        let (fed, past) = self.fed(state, call)?;
        let total = fed.positions();
        let logits_from = call.index("logits_from")?.unwrap_or(0);
        if logits_from >= total - past {
            let message = format!("is {logits_from}; {} positions are fed", total - past);
            return Err(call.refuse("logits_from", message));
        }

        let ids = Array1::from(fed.ids.clone()).insert_axis(Axis(0));
        let ids = call.upload(&ids.into())?;
        let image = match &fed.image {
            Some((features, position)) => Some((
                call.upload(&features.clone().into())?,
                call.upload(&Array1::from(vec![*position as i64]).into())?,
            )),
            None => None,
        };
        let (features, position) = image.as_ref().map(|(features, position)| (features, position)).unzip();
        let from = call.upload(&Array1::from(vec![(past + logits_from) as i64]).into())?;
        let inputs = [Some(&ids), features, position, Some(&from)];
        let mut given = call.function(Function::Whole, &inputs)?.into_iter();
        let states = call.given(Function::Whole, given.next())?;
        let logits = call.given(Function::Whole, given.next())?;

        let mut outputs = Tensors::new();
        let new = call.narrow(&states, 1, past, total - past)?;
        call.output(&mut outputs, "hidden_states", &new)?;
        call.output(&mut outputs, "logits", &logits)?;
        *state = fed;
        Ok(outputs)
    }
}

impl Recompute {
    /// What will have been fed with this call, and how many positions of it are not new.
    fn fed<X: Executor>(&self, state: &Fed, call: &Call<'_, X>) -> Result<(Fed, usize), StageError> {
        let mut fed = state.clone();
        let ids = call.checked(&self.input_ids)?;
        if let Some(length) = call.index("cache_length")? {
            if length > fed.positions() {
                let message = format!("is {length}; only {} positions were fed", fed.positions());
                return Err(call.refuse("cache_length", message));
            }
            fed.cut(length);
        }
        let past = fed.positions();
        if call.has("image_features") {
            let features = call.checked(&self.image_features)?;
            if fed.image.is_some() {
                let message = "were fed before; a program takes those of one picture".to_owned();
                return Err(call.refuse("image_features", message));
            }
            let position = call.index("image_position")?.unwrap_or(0);
            let tokens = ids.shape()[1];
            if position > tokens {
                let message = format!("is {position}; there are {tokens} tokens");
                return Err(call.refuse("image_position", message));
            }
            if let HostTensor::F32(features) = features {
                fed.image = Some((features.clone(), fed.ids.len() + position));
            }
        }
        if let HostTensor::I64(ids) = ids {
            fed.ids.extend(ids);
        }
        if fed.positions() > self.max_positions {
            let message =
                format!("makes {} positions; the model has {}", fed.positions(), self.max_positions);
            return Err(call.refuse("input_ids", message));
        }
        Ok((fed, past))
    }
}
