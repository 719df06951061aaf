//! An edit in the making.

use std::collections::VecDeque;
use std::sync::Arc;

use image::RgbImage;
use ndarray::{Array1, Array4, ArrayD, Axis, Ix4, concatenate};

use super::caching::Caching;
use super::language::{Question, Replied, Replying};
use super::model::{Family, Model, SmartEdit, token_ids};
use super::request::Prepared;
use super::{EditError, EditRequest};
use crate::cache::{Key, Lookup};
use crate::diffusion::{Branch, Denoising};
use crate::picture;
use crate::stage::{Session, StageError, StageKind};
use crate::tensor::Tensors;

/// What one [`Edit::advance`] did.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// The next unit of work belongs to this stage, which has not begun yet.
    StageStarted(StageKind),
    /// A stage has done all it had to.
    StageFinished {
        /// The stage.
        stage: StageKind,
        /// Whether its result was kept from an earlier edit, so that it has not run.
        cached: bool,
    },
    /// The stage's result is being computed by another edit, which has been waited for in vain for a moment.
    Waiting,
    /// The language model has been run; its reply has this many tokens so far.
    Tokens(usize),
    /// The assistant's reply, image tokens left out.
    Reply(String),
    /// A denoising step is done.
    Step {
        /// Steps done.
        done: usize,
        /// Steps in all.
        total: usize,
    },
    /// The edit is whole.
    Finished(EditOutput),
}

/// An edited picture.
#[derive(Debug, Clone, PartialEq)]
pub struct EditOutput {
    /// The picture.
    pub image: RgbImage,
    /// The assistant's reply; `None` where no language model takes part.
    pub reply: Option<String>,
}

/// A denoising step that is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextStep {
    /// Height and width of the latents.
    pub size: (usize, usize),
    /// Whether the denoiser can do it together with steps of other edits; see [`Edit::step_together`].
    pub shareable: bool,
    /// What updates the denoiser's layers; `None` if nothing does.
    pub adapter: Option<Key>,
}

/// An edit in the making.
pub struct Edit {
    model: Arc<Model>,
    prepared: Prepared,
    phase: Phase,
    reply: Option<String>,
    /// Whether the result of the stage at work was kept from an earlier edit.
    cached: bool,
    /// What has been done and not yet been told.
    events: VecDeque<Progress>,
}

/// What comes next, with what it needs of what came before.
enum Phase {
    Vision,
    Language { features: ArrayD<f32> },
    Replying(Box<Replying>),
    Connector { inputs: Tensors },
    Text,
    VaeEncoder { conditioning: Tensors },
    Denoiser(Box<Denoise>),
    VaeDecoder { latents: Array4<f32> },
    Done { image: Option<RgbImage> },
}

/// The denoising loop.
struct Denoise {
    session: Box<dyn Session>,
    denoising: Denoising,
    /// What the session has not been given yet.
    conditioning: Option<Tensors>,
}

impl Denoise {
    /// The session and what it is to be run on next; `None` when all steps are done.
    fn step(&mut self) -> Option<(&mut dyn Session, Tensors)> {
        let input = self.denoising.next_input()?;
        let timesteps = Array1::from_elem(input.sample.dim().0, input.timestep);
        let conditioning = self.conditioning.clone().unwrap_or_default();
        let inputs = conditioning.with("sample", input.sample).with("timestep", timesteps);
        Some((self.session.as_mut(), inputs))
    }
}

impl Phase {
    fn stage(&self) -> Option<StageKind> {
        match self {
            Self::Vision => Some(StageKind::VisionEncoder),
            Self::Language { .. } | Self::Replying(_) => Some(StageKind::LanguageModel),
            Self::Connector { .. } => Some(StageKind::Connector),
            Self::Text => Some(StageKind::TextEncoder),
            Self::VaeEncoder { .. } => Some(StageKind::VaeEncoder),
            Self::Denoiser(_) => Some(StageKind::Denoiser),
            Self::VaeDecoder { .. } => Some(StageKind::VaeDecoder),
            Self::Done { .. } => None,
        }
    }
}

impl Edit {
    pub(super) fn new(model: Arc<Model>, request: EditRequest) -> Result<Self, EditError> {
        let prepared = Prepared::new(&model, request)?;
        let phase = match model.family {
            Family::SmartEdit(_) => Phase::Vision,
            Family::InstructPix2Pix => Phase::Text,
        };
        let events = phase.stage().map(Progress::StageStarted).into_iter().collect();
        Ok(Self { model, prepared, phase, reply: None, cached: false, events })
    }

    /// Does the next unit of work. After [`Progress::Finished`] or an error there is none, and the call fails.
    pub fn advance(&mut self) -> Result<Progress, EditError> {
        if let Some(event) = self.events.pop_front() {
            return Ok(event);
        }
        let before = self.phase.stage();
        self.phase = self.work()?;
        self.enter(before)
    }

    /// The denoising step that is the next unit of work, if it is one.
    pub fn next_step(&self) -> Option<NextStep> {
        match &self.phase {
            Phase::Denoiser(denoise)
                if self.events.is_empty() && denoise.denoising.done() < denoise.denoising.total() =>
            {
                let (_, _, height, width) = denoise.denoising.latents().dim();
                let shareable = self.model.required(StageKind::Denoiser).batches();
                Some(NextStep { size: (height, width), shareable, adapter: self.model.adapted.denoiser() })
            }
            _ => None,
        }
    }

    /// Does the next denoising step of several edits in one run of the denoiser: what each of them did, in their order.
    /// The edits are of one model, and the [`Edit::next_step`] of each is of the same size and adapter.
    ///
    /// # Errors
    ///
    /// The run failed as a whole. No step is done, and each edit can [`Edit::advance`] by itself.
    pub fn step_together(edits: &mut [&mut Self]) -> Result<Vec<Result<Progress, EditError>>, StageError> {
        let Some(model) = edits.first().map(|edit| edit.model.clone()) else { return Ok(Vec::new()) };
        let (mut sessions, mut inputs): (Vec<&mut dyn Session>, _) = (Vec::new(), Vec::new());
        for edit in edits.iter_mut() {
            let step = match &mut edit.phase {
                Phase::Denoiser(denoise) if edit.events.is_empty() => denoise.step(),
                _ => None,
            };
            let (session, input) = step.ok_or_else(|| StageError::Input {
                stage: StageKind::Denoiser,
                input: "sample",
                message: "is not to be had of an edit that is at no step".to_owned(),
            })?;
            sessions.push(session);
            inputs.push(input);
        }
        let outputs = model.required(StageKind::Denoiser).run_together(&mut sessions, &inputs)?;
        Ok(edits.iter_mut().zip(outputs).map(|(edit, outputs)| edit.take_step(outputs)).collect())
    }

    /// Takes what the denoiser made of the edit's step.
    fn take_step(&mut self, outputs: Result<Tensors, StageError>) -> Result<Progress, EditError> {
        let before = self.phase.stage();
        match std::mem::replace(&mut self.phase, Phase::Done { image: None }) {
            Phase::Denoiser(denoise) => self.phase = self.denoised(denoise, outputs?)?,
            _ => return Err(EditError::Over),
        }
        self.enter(before)
    }

    /// Tells of a phase that has begun, and what comes next of all that is to be told.
    fn enter(&mut self, before: Option<StageKind>) -> Result<Progress, EditError> {
        let after = self.phase.stage();
        if before != after {
            let cached = std::mem::take(&mut self.cached);
            self.events.extend(before.map(|stage| Progress::StageFinished { stage, cached }));
            self.events.extend(after.map(Progress::StageStarted));
            if let Phase::Done { image } = &mut self.phase
                && let Some(image) = image.take()
            {
                let output = EditOutput { image, reply: self.reply.take() };
                self.events.push_back(Progress::Finished(output));
            }
        }
        self.events.pop_front().ok_or(EditError::Over)
    }

    /// Decodes the picture as it is predicted so far; `None` before the first and after the last denoising step.
    pub fn preview(&self) -> Result<Option<RgbImage>, EditError> {
        match &self.phase {
            Phase::Denoiser(denoise) => match denoise.denoising.predicted_original() {
                Some(latents) => self.decode(latents).map(Some),
                None => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// Latents after the denoising steps done so far, `[1, 4, h, w]`; `None` outside the denoising loop.
    pub fn latents(&self) -> Option<&Array4<f32>> {
        match &self.phase {
            Phase::Denoiser(denoise) => Some(denoise.denoising.latents()),
            Phase::VaeDecoder { latents } => Some(latents),
            _ => None,
        }
    }

    fn work(&mut self) -> Result<Phase, EditError> {
        match std::mem::replace(&mut self.phase, Phase::Done { image: None }) {
            Phase::Vision => self.see(),
            Phase::Language { features } => self.ask(features),
            Phase::Replying(replying) => self.go_on_replying(replying),
            Phase::Connector { inputs } => self.connect(inputs),
            Phase::Text => self.read(),
            Phase::VaeEncoder { conditioning } => self.encode(conditioning),
            Phase::Denoiser(denoise) => self.denoise(denoise),
            Phase::VaeDecoder { latents } => Ok(Phase::Done { image: Some(self.decode(&latents)?) }),
            Phase::Done { .. } => Err(EditError::Over),
        }
    }

    fn smartedit(&self) -> &SmartEdit {
        match &self.model.family {
            Family::SmartEdit(smartedit) => smartedit,
            Family::InstructPix2Pix => unreachable!("only SmartEdit has these phases"),
        }
    }

    fn see(&mut self) -> Result<Phase, EditError> {
        let kind = StageKind::VisionEncoder;
        let pixels = picture::pixel_values(&self.prepared.image, &self.smartedit().vision);
        let inputs = Tensors::new().with("pixel_values", pixels);
        let Some(mut outputs) = self.result(kind, &inputs)? else { return Ok(Phase::Vision) };
        Ok(Phase::Language { features: take(&mut outputs, kind, "image_features")? })
    }

    fn ask(&mut self, features: ArrayD<f32>) -> Result<Phase, EditError> {
        let smartedit = self.smartedit();
        let prompt = self.prepared.prompt(smartedit)?;
        let options = self.prepared.decoding(smartedit);
        let question = Question { prompt, features, options, reuse: self.prepared.may_reuse() };
        let claim = match self.lookup(|caching| question.key(caching, &self.model, smartedit)) {
            Some(Lookup::Kept(kept)) => {
                self.cached = true;
                return Ok(self.replied(Replied::from_tensors(&kept)?, question.features));
            }
            Some(Lookup::Running) => {
                self.events.push_back(Progress::Waiting);
                return Ok(Phase::Language { features: question.features });
            }
            Some(Lookup::Missing(claim)) => Some(claim),
            None => None,
        };
        self.go_on_replying(Box::new(Replying::new(&self.model, smartedit, question, claim)))
    }

    /// Feeds the language model once.
    fn go_on_replying(&mut self, mut replying: Box<Replying>) -> Result<Phase, EditError> {
        replying.advance(&self.model, self.smartedit())?;
        self.events.push_back(Progress::Tokens(replying.tokens()));
        match replying.finish() {
            Ok((replied, features)) => Ok(self.replied(replied, features)),
            Err(replying) => Ok(Phase::Replying(replying)),
        }
    }

    fn replied(&mut self, replied: Replied, features: ArrayD<f32>) -> Phase {
        let reply = self.smartedit().tokenizer.decode(&replied.reply);
        self.reply = Some(reply.clone());
        self.events.push_back(Progress::Reply(reply));
        let inputs = Tensors::new().with("image_states", replied.states).with("image_features", features);
        Phase::Connector { inputs }
    }

    fn connect(&mut self, inputs: Tensors) -> Result<Phase, EditError> {
        let kind = StageKind::Connector;
        let Some(mut outputs) = self.result(kind, &inputs)? else { return Ok(Phase::Connector { inputs }) };
        let prompt = take(&mut outputs, kind, "prompt_embeds")?;
        let null = &self.smartedit().null_embeds;
        let mut conditioning = Tensors::new().with("prompt_embeds", self.branches(kind, &prompt, null)?);
        if let Some(feature) = outputs.get("image_feature") {
            conditioning.insert("image_feature", feature.clone());
        }
        Ok(Phase::VaeEncoder { conditioning })
    }

    fn read(&mut self) -> Result<Phase, EditError> {
        let kind = StageKind::TextEncoder;
        let inputs = Tensors::new().with("input_ids", token_ids(&self.prepared.clip_ids));
        let Some(mut outputs) = self.result(kind, &inputs)? else { return Ok(Phase::Text) };
        let embeds = take(&mut outputs, kind, "hidden_states")?;
        let rows: Vec<ArrayD<f32>> =
            embeds.axis_iter(Axis(0)).map(|row| row.to_owned().insert_axis(Axis(0))).collect();
        let [prompt, negative] = &rows[..] else {
            return Err(EditError::Output { stage: kind, message: format!("{} texts for 2", rows.len()) });
        };
        let embeds = self.branches(kind, prompt, negative)?;
        Ok(Phase::VaeEncoder { conditioning: Tensors::new().with("prompt_embeds", embeds) })
    }

    fn encode(&mut self, conditioning: Tensors) -> Result<Phase, EditError> {
        let kind = StageKind::VaeEncoder;
        let inputs = Tensors::new().with("image", picture::to_tensor(&self.prepared.source));
        let Some(mut outputs) = self.result(kind, &inputs)? else {
            return Ok(Phase::VaeEncoder { conditioning });
        };
        let latents = four_dimensional(take(&mut outputs, kind, "latents")?, kind)?;
        let denoising = self.prepared.denoising(latents)?;
        let session = self.model.required(StageKind::Denoiser).session();
        Ok(Phase::Denoiser(Box::new(Denoise { session, denoising, conditioning: Some(conditioning) })))
    }

    /// Does one denoising step.
    fn denoise(&mut self, mut denoise: Box<Denoise>) -> Result<Phase, EditError> {
        let Some((session, inputs)) = denoise.step() else { return Err(EditError::Over) };
        let outputs = session.run(&inputs)?;
        self.denoised(denoise, outputs)
    }

    /// Takes the denoiser's prediction.
    fn denoised(&mut self, mut denoise: Box<Denoise>, mut outputs: Tensors) -> Result<Phase, EditError> {
        let kind = StageKind::Denoiser;
        let Denoise { denoising, conditioning, .. } = denoise.as_mut();
        *conditioning = None;
        denoising.advance(&four_dimensional(take(&mut outputs, kind, "noise_prediction")?, kind)?)?;
        let (done, total) = (denoising.done(), denoising.total());
        self.events.push_back(Progress::Step { done, total });
        if done < total {
            return Ok(Phase::Denoiser(denoise));
        }
        Ok(Phase::VaeDecoder { latents: denoise.denoising.latents().clone() })
    }

    /// Conditioning of the branches of guidance, one after the other.
    fn branches(
        &self,
        stage: StageKind,
        text: &ArrayD<f32>,
        without: &ArrayD<f32>,
    ) -> Result<ArrayD<f32>, EditError> {
        let branches = self.prepared.guidance.branches().into_iter();
        let rows = branches.map(|branch| if branch == Branch::Text { text.view() } else { without.view() });
        concatenate(Axis(0), &rows.collect::<Vec<_>>())
            .map_err(|e| EditError::Output { stage, message: format!("embeddings do not fit: {e}") })
    }

    fn decode(&self, latents: &Array4<f32>) -> Result<RgbImage, EditError> {
        let kind = StageKind::VaeDecoder;
        let unscaled = latents / self.model.sizes.vae.scaling_factor;
        let mut outputs = self.run(kind, &Tensors::new().with("latents", unscaled))?;
        Ok(picture::from_tensor(&four_dimensional(take(&mut outputs, kind, "image")?, kind)?)?)
    }

    /// What a stage makes of its inputs, or made of them for an earlier edit. `None` if another edit is computing it.
    fn result(&mut self, kind: StageKind, inputs: &Tensors) -> Result<Option<Tensors>, EditError> {
        match self.lookup(|caching| caching.key(kind, inputs)) {
            Some(Lookup::Kept(kept)) => {
                self.cached = true;
                Ok(Some(Tensors::clone(&kept)))
            }
            Some(Lookup::Running) => {
                self.events.push_back(Progress::Waiting);
                Ok(None)
            }
            Some(Lookup::Missing(claim)) => {
                let outputs = self.run(kind, inputs)?;
                claim.keep(outputs.clone());
                Ok(Some(outputs))
            }
            None => Ok(Some(self.run(kind, inputs)?)),
        }
    }

    /// What is kept under a key; `None` if this edit or its model keeps nothing.
    fn lookup(&self, key: impl FnOnce(&Caching) -> Option<Key>) -> Option<Lookup> {
        let caching = self.model.caching.as_ref().filter(|_| self.prepared.may_reuse())?;
        Some(caching.cache.lookup(key(caching)?))
    }

    fn run(&self, kind: StageKind, inputs: &Tensors) -> Result<Tensors, StageError> {
        self.model.required(kind).session().run(inputs)
    }
}

fn take(outputs: &mut Tensors, stage: StageKind, name: &str) -> Result<ArrayD<f32>, StageError> {
    outputs.take_f32(name).map_err(|source| StageError::Tensors { stage, source })
}

fn four_dimensional(array: ArrayD<f32>, stage: StageKind) -> Result<Array4<f32>, EditError> {
    let message = format!("shape {:?} has not four dimensions", array.shape());
    array.into_dimensionality::<Ix4>().map_err(|_| EditError::Output { stage, message })
}
