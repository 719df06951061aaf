//! Named parameters of all networks, in 32 bits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use smartedit_core::model::NetworkConfig;
use smartedit_core::networks::manifest;
use tch::{Kind, Tensor};

use crate::initial;

/// Parameters by name: the network's, a slash, then the checkpoint's own, such as `denoiser/conv_in.weight`.
#[derive(Default)]
pub struct Parameters(BTreeMap<String, Tensor>);

impl Parameters {
    /// Gives a network exactly the parameters that its configuration has: those that are missing are added with their
    /// initial values, which libtorch's generator draws; those of another configuration go.
    ///
    /// # Errors
    /// The configuration is contradictory.
    pub fn fit(&mut self, network: &str, config: &NetworkConfig) -> Result<()> {
        let mut others: BTreeSet<String> = self.of(network).map(|(name, _)| name.to_owned()).collect();
        for (name, shape) in manifest(config)? {
            if !others.remove(&name) {
                let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
                let value = initial::values(config.kind(), &name, &shape);
                self.0.insert(format!("{network}/{name}"), value);
            }
        }
        for name in others {
            self.0.remove(&format!("{network}/{name}"));
        }
        Ok(())
    }

    /// Adds or replaces a parameter.
    pub fn insert(&mut self, name: impl Into<String>, value: Tensor) {
        self.0.insert(name.into(), value.detach().to_kind(Kind::Float));
    }

    /// A parameter.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    /// Whether there are parameters of a network.
    pub fn has(&self, network: &str) -> bool {
        self.of(network).next().is_some()
    }

    /// All parameters in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The parameters of a network, by their own names.
    pub fn of<'a>(&'a self, network: &'a str) -> impl Iterator<Item = (&'a str, &'a Tensor)> {
        let own = move |name: &'a str| name.strip_prefix(network)?.strip_prefix('/');
        self.iter().filter_map(move |(name, tensor)| Some((own(name)?, tensor)))
    }

    /// What stands behind a name and a slash, by the names that follow.
    pub(crate) fn part(&self, name: &str) -> Self {
        Self(self.of(name).map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone())).collect())
    }

    /// Makes exactly those parameters require gradients whose names pass.
    pub fn train_only(&mut self, trained: impl Fn(&str) -> bool) {
        for (name, tensor) in &mut self.0 {
            let value = tensor.detach();
            *tensor = value.set_requires_grad(trained(name));
        }
    }

    /// Those that require gradients.
    pub fn trained(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.iter().filter(|(_, tensor)| tensor.requires_grad())
    }

    /// Drops all networks but these.
    pub fn keep(&mut self, networks: &[&str]) {
        self.0.retain(|name, _| networks.iter().any(|network| name.split('/').next() == Some(network)));
    }

    /// Takes the values of those parameters that `other` has, too, and adds those that are missing here.
    pub fn take(&mut self, other: Parameters) {
        self.0.extend(other.0);
    }

    /// Adds adapters of low rank to the named matrices, which act as `W + scale · B A`: `A` as a linear layer
    /// begins, `B` zero (PEFT's layout).
    pub fn add_lora(&mut self, matrices: impl Fn(&str) -> bool, rank: i64) {
        let targets: Vec<(String, Vec<i64>)> = self
            .iter()
            .filter(|(name, _)| matrices(name))
            .filter_map(|(name, tensor)| Some((name.strip_suffix(".weight")?.to_owned(), tensor.size())))
            .collect();
        for (layer, size) in targets {
            let [outputs, inputs] = size[..] else { continue };
            let bound = (3.0 / inputs as f64).sqrt();
            let a = Tensor::empty([rank, inputs], tch::kind::FLOAT_CPU).uniform_(-bound, bound);
            self.0.insert(format!("{layer}.lora_A.default.weight"), a);
            self.0.insert(
                format!("{layer}.lora_B.default.weight"),
                Tensor::zeros([outputs, rank], tch::kind::FLOAT_CPU),
            );
        }
    }

    /// Adds adapters into the matrices they act on.
    pub fn merge_lora(&mut self, scale: f64) {
        let layers: Vec<String> =
            self.iter().filter_map(|(name, _)| name.strip_suffix(LORA_A)).map(str::to_owned).collect();
        for layer in layers {
            let a = self.0.remove(&format!("{layer}{LORA_A}"));
            let b = self.0.remove(&format!("{layer}{LORA_B}"));
            if let (Some(a), Some(b), Some(weight)) = (a, b, self.0.get_mut(&format!("{layer}.weight"))) {
                *weight = tch::no_grad(|| &*weight + b.matmul(&a) * scale).detach();
            }
        }
    }

    /// Writes the parameters that pass to a safetensors file, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path, passes: impl Fn(&str) -> bool) -> Result<()> {
        let tensors: Vec<(&str, Tensor)> = self
            .iter()
            .filter(|(name, _)| passes(name))
            .map(|(name, tensor)| (name, tensor.detach().contiguous()))
            .collect();
        write_whole(path, |partial| Ok(Tensor::write_safetensors(&tensors, partial)?))
    }

    /// Reads parameters from a safetensors file.
    ///
    /// # Errors
    /// The file cannot be read, or holds something other than 32-bit floats.
    pub fn load(path: &Path) -> Result<Self> {
        let tensors =
            Tensor::read_safetensors(path).with_context(|| format!("cannot read {}", path.display()))?;
        for (name, tensor) in &tensors {
            ensure!(tensor.kind() == Kind::Float, "{}: {name} is no tensor of f32", path.display());
        }
        Ok(Self(tensors.into_iter().collect()))
    }
}

/// What the name of an adapter's first matrix adds to its layer's.
pub(crate) const LORA_A: &str = ".lora_A.default.weight";
/// What the name of an adapter's second matrix adds to its layer's.
pub(crate) const LORA_B: &str = ".lora_B.default.weight";

/// Writes a file beside its place and renames it when whole.
pub(crate) fn write_whole(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    write(&partial).with_context(|| format!("cannot write {}", partial.display()))?;
    std::fs::rename(&partial, path).with_context(|| format!("cannot write {}", path.display()))
}
