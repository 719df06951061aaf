//! Scenes whose pictures are encoded once: for each four outcomes of one place, any of which can be the source of an
//! edit and any other its target.

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use image::RgbImage;
use sha2::{Digest as _, Sha256};
use tch::{Kind, Tensor};

use crate::lab::Lab;
use crate::machine::leave;
use crate::parameters::{Parameters, write_whole};
use crate::pictures;
use crate::world::{Class, MarkColour, Object, Scene, Split, Task, sample_new, sample_scene};

/// Outcomes of a place: the class that was there, two others, and nothing.
const OUTCOMES: usize = 4;
/// Pictures encoded at a time.
const CHUNK: usize = 64;

/// Encoded scenes.
pub struct Pool {
    families: Vec<Family>,
    /// `[families · 4, c, h, w]`; with markings they follow, `[families · 5, c, h, w]`.
    latents: Tensor,
    /// `[families · 4, p, e]`, once the vision tower is trained.
    features: Option<Tensor>,
}

struct Family {
    scene: Scene,
    slot: usize,
    outcomes: [Option<Class>; OUTCOMES],
    mark: MarkColour,
}

/// An edit out of the pool.
pub struct PooledEdit<'a> {
    /// The scene before the edit.
    pub scene: Scene,
    /// The object that is edited, as it was.
    pub object: &'a Object,
    /// Its index in the scene.
    pub slot: usize,
    /// What is asked for.
    pub task: Task,
    source: i64,
    target: i64,
}

impl Pool {
    /// Encodes the recipe's number of scenes, or reads what an earlier run encoded with the same parameters; with
    /// `marks`, also each scene with its object marked.
    pub(crate) fn new(lab: &Lab, parameters: &Parameters, marks: bool) -> Result<Self> {
        let families: Vec<Family> = (0..lab.recipe.pool_scenes)
            .map(|index| Family::sample(lab.recipe.seed.wrapping_mul(0x9e37_79b9).wrapping_add(index as u64)))
            .collect();
        ensure!(!families.is_empty(), "`pool_scenes` is 0");
        let outcomes = |family: &Family| family.outcomes();
        let encoder = lab.vae_encoder(parameters)?;
        let into_latents =
            |pixels: &Tensor| leave(&encoder.forward(lab.machine.engine(), &lab.machine.enter(pixels))?);
        let mut latents = cached(lab, &families, parameters, "vae_encoder", outcomes, into_latents)?;
        if marks {
            let marked = |family: &Family| vec![family.marked()];
            let markings = cached(lab, &families, parameters, "vae_encoder", marked, into_latents)?;
            latents = Tensor::cat(&[latents, markings], 0);
        }
        let features = match parameters.has("vision_encoder") {
            true => {
                let encoder = lab.vision_encoder(parameters)?;
                let into_features = |pixels: &Tensor| Ok(lab.see(&encoder, pixels)?.to_kind(Kind::BFloat16));
                Some(cached(lab, &families, parameters, "vision_encoder", outcomes, into_features)?)
            }
            false => None,
        };
        Ok(Self { families, latents, features })
    }

    /// Draws an edit.
    pub fn draw(&self, rng: &mut Rng) -> PooledEdit<'_> {
        let index = rng.usize(..self.families.len());
        let family = &self.families[index];
        // Before an edit, a mirror shows what stands in front of it.
        let source = if family.scene.mirror.is_some() { 0 } else { rng.usize(..OUTCOMES - 1) };
        let target = (source + rng.usize(1..OUTCOMES)) % OUTCOMES;
        PooledEdit {
            scene: family.scene.with(family.slot, family.outcomes[source]),
            object: &family.scene.objects[family.slot],
            slot: family.slot,
            task: Task::Becomes(family.outcomes[target]),
            source: (OUTCOMES * index + source) as i64,
            target: (OUTCOMES * index + target) as i64,
        }
    }

    /// Draws an object to be marked.
    ///
    /// # Errors
    /// The pool has been made without markings.
    pub fn draw_marking(&self, rng: &mut Rng) -> Result<PooledEdit<'_>> {
        let unmarked = OUTCOMES * self.families.len();
        ensure!(self.latents.size()[0] > unmarked as i64, "the pool has no markings");
        let index = rng.usize(..self.families.len());
        let family = &self.families[index];
        Ok(PooledEdit {
            scene: family.scene.clone(),
            object: &family.scene.objects[family.slot],
            slot: family.slot,
            task: Task::Marked(family.mark),
            source: (OUTCOMES * index) as i64,
            target: (unmarked + index) as i64,
        })
    }

    /// Latents before edits, `[batch, c, h, w]`.
    pub fn before(&self, edits: &[PooledEdit<'_>]) -> Tensor {
        self.latents_of(edits.iter().map(|edit| edit.source))
    }

    /// Latents after edits, `[batch, c, h, w]`.
    pub fn after(&self, edits: &[PooledEdit<'_>]) -> Tensor {
        self.latents_of(edits.iter().map(|edit| edit.target))
    }

    fn latents_of(&self, indices: impl Iterator<Item = i64>) -> Tensor {
        let indices = Tensor::from_slice(&indices.collect::<Vec<_>>());
        self.latents.index_select(0, &indices).to_kind(Kind::Float)
    }

    /// The vision tower's features of the pictures before the edits, `[batch, p, e]`.
    ///
    /// # Errors
    /// The vision tower is not trained.
    pub fn features(&self, edits: &[PooledEdit<'_>]) -> Result<Tensor> {
        let features = self.features.as_ref().context("no stage has trained the vision tower")?;
        let indices: Vec<i64> = edits.iter().map(|edit| edit.source).collect();
        Ok(features.index_select(0, &Tensor::from_slice(&indices)).to_kind(Kind::Float))
    }
}

impl Family {
    fn sample(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let (scene, slot) = sample_scene(&mut rng, None, Split::Train);
        let object = scene.objects[slot];
        let mut outcomes = [Some(object.class), None, None, None];
        for index in 1..OUTCOMES - 1 {
            while outcomes[index].is_none() || outcomes[..index].contains(&outcomes[index]) {
                outcomes[index] = sample_new(&mut rng, &object, Split::Train);
            }
        }
        let mark = MarkColour::ALL[rng.usize(..MarkColour::ALL.len())];
        Self { scene, slot, outcomes, mark }
    }

    fn outcomes(&self) -> Vec<RgbImage> {
        self.outcomes.iter().map(|&outcome| self.scene.with(self.slot, outcome).render()).collect()
    }

    fn marked(&self) -> RgbImage {
        self.scene.marked(self.slot, self.mark)
    }
}

/// Encodes pictures of all families, without gradients.
fn encode(
    families: &[Family],
    render: impl Fn(&Family) -> Vec<RgbImage>,
    encode: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    let progress = indicatif::ProgressBar::new(families.len() as u64).with_message("encoding scenes");
    let mut encoded = Vec::new();
    for chunk in families.chunks(CHUNK / OUTCOMES) {
        let rendered: Vec<RgbImage> = chunk.iter().flat_map(&render).collect();
        encoded.push(encode(&pictures::tensor(&rendered))?);
        progress.inc(chunk.len() as u64);
    }
    progress.finish_and_clear();
    Ok(Tensor::cat(&encoded, 0))
}

/// What `encode` makes of what `render` gives, kept in a file named after the pictures and the parameters it depends on.
fn cached(
    lab: &Lab,
    families: &[Family],
    parameters: &Parameters,
    network: &str,
    render: impl Fn(&Family) -> Vec<RgbImage>,
    to_encoded: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let mut digest = Sha256::new();
    digest.update(families.len().to_le_bytes());
    for picture in families.iter().take(8).flat_map(&render) {
        digest.update(picture.as_raw());
    }
    for (name, tensor) in parameters.of(network) {
        digest.update(name);
        for value in Vec::<f32>::try_from(tensor.detach().reshape([-1]))? {
            digest.update(value.to_le_bytes());
        }
    }
    let digest: String = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let path = lab.cache.join(format!("{network}-{digest}.safetensors"));
    if path.exists() {
        let mut tensors =
            Tensor::read_safetensors(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let (_, tensor) = tensors.pop().with_context(|| format!("{} is empty", path.display()))?;
        return Ok(tensor);
    }
    let tensor = encode(families, render, to_encoded)?.contiguous();
    write_whole(&path, |partial| Ok(Tensor::write_safetensors(&[("encoded", &tensor)], partial)?))?;
    Ok(tensor)
}
