//! The denoiser as a stage: its session keeps what depends on the conditioning alone.

mod together;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use self::together::Shared;
use super::Logic;
use super::call::Call;
use super::executor::Executor;
use super::signature::{self, Function, Port};
use crate::model::UnetConfig;
use crate::stage::StageError;
use crate::tensor::{HostTensor, Tensors};

/// What a denoiser is given (the conditioning once, the rest with each step), and what computes it.
pub(super) struct Denoise {
    prompt_embeds: Port,
    image_feature: Port,
    sample: Port,
    timestep: Port,
    functions: Functions,
    batches: bool,
}

/// The functions that a step is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Functions {
    /// The network's three: what lasts is computed once.
    Network,
    /// All in one, of a program.
    Program,
}

/// The conditioning of an edit.
pub(super) struct Prepared<V> {
    /// Tells this conditioning from every other one.
    id: u64,
    rows: usize,
    /// What every step needs of `prompt_embeds`; for a program, these themselves.
    context: Vec<V>,
    /// As the connector made it: one for all rows, or one for each.
    feature: Option<V>,
    /// How often a run together with others takes the feature.
    repeats: usize,
    /// At the height and width of the latents last seen.
    resized: Option<(Size, V)>,
    /// What was joined for the last run together with others.
    shared: Option<Arc<Shared<V>>>,
}

/// Height and width of latents.
type Size = (usize, usize);

/// One edit's part of a step.
#[derive(Clone, Copy)]
struct Step<'a> {
    sample: &'a HostTensor,
    timestep: &'a HostTensor,
}

impl Step<'_> {
    fn size(&self) -> Size {
        (self.sample.shape()[2], self.sample.shape()[3])
    }
}

impl Denoise {
    /// Of the UNet.
    pub(super) fn network(config: &UnetConfig) -> Self {
        Self::new(config, Functions::Network, true)
    }

    /// Of a program, which takes any number of rows or does not.
    pub(super) fn program(config: &UnetConfig, batches: bool) -> Self {
        Self::new(config, Functions::Program, batches)
    }

    fn new(config: &UnetConfig, functions: Functions, batches: bool) -> Self {
        Self {
            prompt_embeds: signature::prompt_embeds(config),
            image_feature: signature::image_feature(config),
            sample: signature::sample(config),
            timestep: signature::timestep(),
            functions,
            batches,
        }
    }
}

impl<X: Executor> Logic<X> for Denoise {
    type State = Option<Prepared<X::Value>>;

    fn run(&self, state: &mut Self::State, call: &Call<'_, X>) -> Result<Tensors, StageError> {
        self.take_conditioning(state, call)?;
        let mut outputs = Tensors::new();
        if call.has("sample") || !call.has("prompt_embeds") {
            let (prepared, step) = self.step(state, call)?;
            prepared.shared = None;
            let (sample, timestep) = (call.upload(step.sample)?, call.upload(step.timestep)?);
            self.resize(prepared, call, &sample, step.size())?;
            let context: Vec<&X::Value> = prepared.context.iter().collect();
            let noise = self.predict(call, [&sample, &timestep], prepared.feature(), &context)?;
            call.output(&mut outputs, "noise_prediction", &noise)?;
        }
        Ok(outputs)
    }

    fn batches(&self) -> bool {
        self.batches
    }

    fn run_together(
        &self,
        states: &mut [&mut Self::State],
        calls: &[Call<'_, X>],
    ) -> Result<Vec<Result<Tensors, StageError>>, StageError> {
        self.steps_together(states, calls)
    }
}

impl Denoise {
    /// Keeps the conditioning, if it is given.
    fn take_conditioning<X: Executor>(
        &self,
        state: &mut Option<Prepared<X::Value>>,
        call: &Call<'_, X>,
    ) -> Result<(), StageError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        if !call.has("prompt_embeds") {
            return Ok(());
        }
        let embeds = call.checked(&self.prompt_embeds)?;
        let rows = embeds.shape()[0];
        let (feature, repeats) = self.feature(call, rows)?;
        let embeds = call.upload(embeds)?;
        let context = match self.functions {
            Functions::Network => call.function(Function::Prepare, &[Some(&embeds)])?,
            Functions::Program => vec![embeds],
        };
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        *state = Some(Prepared { id, rows, context, feature, repeats, resized: None, shared: None });
        Ok(())
    }

    /// The image feature, if it is given, and how often a run of so many rows takes it.
    fn feature<X: Executor>(
        &self,
        call: &Call<'_, X>,
        rows: usize,
    ) -> Result<(Option<X::Value>, usize), StageError> {
        if !call.has("image_feature") {
            return Ok((None, rows));
        }
        let feature = call.checked(&self.image_feature)?;
        let repeats = match feature.shape()[0] {
            1 => rows,
            found if found == rows => 1,
            found => {
                let message = format!("is a batch of {found}; 1 or {rows} is needed");
                return Err(call.refuse("image_feature", message));
            }
        };
        Ok((Some(call.upload(feature)?), repeats))
    }

    /// The conditioning, and the step that is to be done with it.
    fn step<'s, 'a, X: Executor>(
        &self,
        state: &'s mut Option<Prepared<X::Value>>,
        call: &Call<'a, X>,
    ) -> Result<(&'s mut Prepared<X::Value>, Step<'a>), StageError> {
        let sample = call.checked(&self.sample)?;
        let prepared = state
            .as_mut()
            .ok_or_else(|| call.refuse("prompt_embeds", "must be given before the first step".to_owned()))?;
        let (needed, timestep) = (prepared.rows, call.checked(&self.timestep)?);
        for (name, tensor) in [("sample", sample), ("timestep", timestep)] {
            let found = tensor.shape()[0];
            if found != needed {
                let message = format!("is a batch of {found}; the conditioning is one of {needed}");
                return Err(call.refuse(name, message));
            }
        }
        Ok((prepared, Step { sample, timestep }))
    }

    /// Brings the image feature, if there is one, to the size of a sample.
    fn resize<X: Executor>(
        &self,
        prepared: &mut Prepared<X::Value>,
        call: &Call<'_, X>,
        sample: &X::Value,
        size: Size,
    ) -> Result<(), StageError> {
        if self.functions == Functions::Network
            && let Some(feature) = &prepared.feature
            && prepared.resized.as_ref().is_none_or(|(at, _)| *at != size)
        {
            let resized = call.only(Function::ResizeFeature, &[Some(feature), Some(sample)])?;
            prepared.resized = Some((size, resized));
        }
        Ok(())
    }

    fn predict<X: Executor>(
        &self,
        call: &Call<'_, X>,
        [sample, timestep]: [&X::Value; 2],
        feature: Option<&X::Value>,
        context: &[&X::Value],
    ) -> Result<X::Value, StageError> {
        let context = context.iter().copied().map(Some);
        let beginning = [Some(sample), Some(timestep)].into_iter();
        match self.functions {
            Functions::Network => {
                let inputs: Vec<_> = beginning.chain([feature]).chain(context).collect();
                call.only(Function::Step, &inputs)
            }
            Functions::Program => {
                let inputs: Vec<_> = beginning.chain(context).chain([feature]).collect();
                call.only(Function::Whole, &inputs)
            }
        }
    }
}

impl<V> Prepared<V> {
    /// The image feature as a step takes it.
    fn feature(&self) -> Option<&V> {
        self.resized.as_ref().map(|(_, feature)| feature).or(self.feature.as_ref())
    }
}
