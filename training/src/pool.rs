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
use crate::world::{Class, Object, Scene, Split, sample_new, sample_scene};

/// Outcomes of a place: the class that was there, two others, and nothing.
const OUTCOMES: usize = 4;
/// Pictures encoded at a time.
const CHUNK: usize = 64;

/// Encoded scenes.
pub struct Pool {
    families: Vec<Family>,
    /// `[families · 4, c, h, w]`.
    latents: Tensor,
    /// `[families · 4, p, e]`, once the vision tower is trained.
    features: Option<Tensor>,
}

struct Family {
    scene: Scene,
    slot: usize,
    outcomes: [Option<Class>; OUTCOMES],
}

/// An edit out of the pool.
pub struct PooledEdit<'a> {
    /// The scene before the edit.
    pub scene: Scene,
    /// The object that is edited, as it was.
    pub object: &'a Object,
    /// Its index in the scene.
    pub slot: usize,
    /// What shall be there.
    pub new: Option<Class>,
    source: i64,
    target: i64,
}

impl Pool {
    /// Encodes the recipe's number of scenes, or reads what an earlier run encoded with the same parameters.
    pub(crate) fn new(lab: &Lab, parameters: &Parameters) -> Result<Self> {
        let families: Vec<Family> = (0..lab.recipe.pool_scenes)
            .map(|index| Family::sample(lab.recipe.seed.wrapping_mul(0x9e37_79b9).wrapping_add(index as u64)))
            .collect();
        ensure!(!families.is_empty(), "`pool_scenes` is 0");
        let latents = cached(lab, &families, parameters, "vae_encoder", || {
            let encoder = lab.vae_encoder(parameters)?;
            encode(&families, |pixels| {
                leave(&encoder.forward(lab.machine.engine(), &lab.machine.enter(pixels))?)
            })
        })?;
        let features = match parameters.has("vision_encoder") {
            true => Some(cached(lab, &families, parameters, "vision_encoder", || {
                let encoder = lab.vision_encoder(parameters)?;
                encode(&families, |pixels| Ok(lab.see(&encoder, pixels)?.to_kind(Kind::BFloat16)))
            })?),
            false => None,
        };
        Ok(Self { families, latents, features })
    }

    /// Draws an edit.
    pub fn draw(&self, rng: &mut Rng) -> PooledEdit<'_> {
        let index = rng.usize(..self.families.len());
        let family = &self.families[index];
        let source = rng.usize(..OUTCOMES - 1);
        let target = (source + rng.usize(1..OUTCOMES)) % OUTCOMES;
        PooledEdit {
            scene: family.scene.with(family.slot, family.outcomes[source]),
            object: &family.scene.objects[family.slot],
            slot: family.slot,
            new: family.outcomes[target],
            source: (OUTCOMES * index + source) as i64,
            target: (OUTCOMES * index + target) as i64,
        }
    }

    /// Latents before and after edits, `[batch, c, h, w]` each.
    pub fn latents(&self, edits: &[PooledEdit<'_>]) -> (Tensor, Tensor) {
        let pick = |which: fn(&PooledEdit<'_>) -> i64| {
            let indices: Vec<i64> = edits.iter().map(which).collect();
            self.latents.index_select(0, &Tensor::from_slice(&indices)).to_kind(Kind::Float)
        };
        (pick(|edit| edit.source), pick(|edit| edit.target))
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
        Self { scene, slot, outcomes }
    }

    fn render(&self) -> impl Iterator<Item = RgbImage> {
        self.outcomes.iter().map(|&outcome| self.scene.with(self.slot, outcome).render())
    }
}

/// Encodes all outcomes of all families, without gradients.
fn encode(families: &[Family], encode: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    let progress = indicatif::ProgressBar::new(families.len() as u64).with_message("encoding scenes");
    let mut encoded = Vec::new();
    for chunk in families.chunks(CHUNK / OUTCOMES) {
        let rendered: Vec<RgbImage> = chunk.iter().flat_map(Family::render).collect();
        encoded.push(encode(&pictures::tensor(&rendered))?);
        progress.inc(chunk.len() as u64);
    }
    progress.finish_and_clear();
    Ok(Tensor::cat(&encoded, 0))
}

/// What `compute` gives, kept in a file named after the pictures and the parameters it depends on.
fn cached(
    lab: &Lab,
    families: &[Family],
    parameters: &Parameters,
    network: &str,
    compute: impl FnOnce() -> Result<Tensor>,
) -> Result<Tensor> {
    let mut digest = Sha256::new();
    digest.update(families.len().to_le_bytes());
    for picture in families.iter().take(8).flat_map(Family::render) {
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
    let tensor = compute()?.contiguous();
    write_whole(&path, |partial| Ok(Tensor::write_safetensors(&[("encoded", &tensor)], partial)?))?;
    Ok(tensor)
}
