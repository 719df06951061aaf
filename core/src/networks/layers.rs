//! Layers that several networks share.

use crate::engine::{Engine, Padding, Result};
use crate::model::Activation;
use crate::weights::{self, LowRank, Weights};

/// `x · weightᵀ + bias`, and what low-rank updates add.
pub(crate) struct Linear<T> {
    weight: T,
    bias: Option<T>,
    updates: Vec<LowRank<T>>,
}

impl<T> Linear<T> {
    /// `[…, inputs]` → `[…, outputs]`.
    pub(crate) fn load(weights: &Weights<'_, T>, inputs: usize, outputs: usize) -> weights::Result<Self> {
        let bias = Some(weights.tensor("bias", &[outputs])?);
        Ok(Self { bias, ..Self::load_unbiased(weights, inputs, outputs)? })
    }

    /// The same without a bias.
    pub(crate) fn load_unbiased(
        weights: &Weights<'_, T>,
        inputs: usize,
        outputs: usize,
    ) -> weights::Result<Self> {
        let shape = [outputs, inputs];
        let weight = weights.tensor("weight", &shape)?;
        Ok(Self { weight, bias: None, updates: weights.updates("weight", &shape) })
    }

    pub(crate) fn forward<E: Engine<Tensor = T>>(&self, e: &E, x: &T) -> Result<T> {
        let y = e.linear(x, &self.weight, self.bias.as_ref())?;
        self.updates.iter().try_fold(y, |y, update| e.add(&y, &update.linear(e, x)?))
    }
}

/// A convolution with a square kernel, and what low-rank updates add.
pub(crate) struct Conv2d<T> {
    weight: T,
    bias: Option<T>,
    stride: usize,
    padding: Padding,
    updates: Vec<LowRank<T>>,
}

impl<T> Conv2d<T> {
    /// A biased convolution that keeps height and width.
    pub(crate) fn load(
        weights: &Weights<'_, T>,
        inputs: usize,
        outputs: usize,
        kernel: usize,
    ) -> weights::Result<Self> {
        Self::load_strided(weights, inputs, outputs, kernel, 1, Padding::all(kernel / 2))
    }

    /// A biased convolution with its own stride and padding.
    pub(crate) fn load_strided(
        weights: &Weights<'_, T>,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        stride: usize,
        padding: Padding,
    ) -> weights::Result<Self> {
        let shape = [outputs, inputs, kernel, kernel];
        let (weight, bias) = (weights.tensor("weight", &shape)?, Some(weights.tensor("bias", &[outputs])?));
        Ok(Self { weight, bias, stride, padding, updates: weights.updates("weight", &shape) })
    }

    /// A convolution that cuts the picture into patches, without bias.
    pub(crate) fn load_patches(
        weights: &Weights<'_, T>,
        inputs: usize,
        outputs: usize,
        patch: usize,
    ) -> weights::Result<Self> {
        let shape = [outputs, inputs, patch, patch];
        let (weight, updates) = (weights.tensor("weight", &shape)?, weights.updates("weight", &shape));
        Ok(Self { weight, bias: None, stride: patch, padding: Padding::all(0), updates })
    }

    pub(crate) fn forward<E: Engine<Tensor = T>>(&self, e: &E, x: &T) -> Result<T> {
        let y = e.conv2d(x, &self.weight, self.bias.as_ref(), self.stride, self.padding)?;
        let add = |y: T, update: &LowRank<T>| e.add(&y, &update.conv2d(e, x, self.stride, self.padding)?);
        self.updates.iter().try_fold(y, add)
    }
}

/// Layer norm over the last dimension.
pub(crate) struct LayerNorm<T> {
    weight: T,
    bias: T,
    eps: f64,
}

impl<T> LayerNorm<T> {
    pub(crate) fn load(weights: &Weights<'_, T>, size: usize, eps: f64) -> weights::Result<Self> {
        Ok(Self { weight: weights.tensor("weight", &[size])?, bias: weights.tensor("bias", &[size])?, eps })
    }

    pub(crate) fn forward<E: Engine<Tensor = T>>(&self, e: &E, x: &T) -> Result<T> {
        e.layer_norm(x, &self.weight, &self.bias, self.eps)
    }
}

/// Group norm over channels.
pub(crate) struct GroupNorm<T> {
    weight: T,
    bias: T,
    groups: usize,
    eps: f64,
}

impl<T> GroupNorm<T> {
    pub(crate) fn load(
        weights: &Weights<'_, T>,
        groups: usize,
        channels: usize,
        eps: f64,
    ) -> weights::Result<Self> {
        if groups == 0 || !channels.is_multiple_of(groups) {
            return Err(weights::WeightsError::Config(format!(
                "{channels} channels do not divide into {groups} groups"
            )));
        }
        let (weight, bias) = (weights.tensor("weight", &[channels])?, weights.tensor("bias", &[channels])?);
        Ok(Self { weight, bias, groups, eps })
    }

    pub(crate) fn forward<E: Engine<Tensor = T>>(&self, e: &E, x: &T) -> Result<T> {
        e.group_norm(x, self.groups, &self.weight, &self.bias, self.eps)
    }
}

/// The width of one attention head.
pub(crate) fn head_dim(size: usize, heads: usize) -> weights::Result<usize> {
    if heads == 0 || !size.is_multiple_of(heads) {
        return Err(weights::WeightsError::Config(format!(
            "width {size} does not divide into {heads} heads"
        )));
    }
    Ok(size / heads)
}

/// Keys and values that are ready for attention: `[batch, heads, m, d]` each.
#[derive(Clone)]
pub struct KeyValue<T> {
    /// Keys.
    pub key: T,
    /// Values.
    pub value: T,
}

/// The projections of an attention and their names in a checkpoint.
pub(crate) struct AttentionShape<'a> {
    /// Names of the query, key, value and output projections.
    pub(crate) names: [&'a str; 4],
    /// Width of the queries' input and of the output.
    pub(crate) query_size: usize,
    /// Width of the keys' and values' input.
    pub(crate) key_size: usize,
    /// Width inside, over all heads.
    pub(crate) inner_size: usize,
    /// Number of heads.
    pub(crate) heads: usize,
    /// Whether query, key and value projections have biases; the output projection always has one.
    pub(crate) biased: bool,
}

/// Multi-head attention with projections.
pub(crate) struct Attention<T> {
    query: Linear<T>,
    key: Linear<T>,
    value: Linear<T>,
    out: Linear<T>,
    heads: usize,
    scale: f64,
}

impl<T> Attention<T> {
    pub(crate) fn load(weights: &Weights<'_, T>, shape: &AttentionShape<'_>) -> weights::Result<Self> {
        let head_dim = head_dim(shape.inner_size, shape.heads)?;
        let load = |name: &str, inputs: usize| {
            let scope = weights.scope(name);
            if shape.biased {
                Linear::load(&scope, inputs, shape.inner_size)
            } else {
                Linear::load_unbiased(&scope, inputs, shape.inner_size)
            }
        };
        let [query, key, value, out] = shape.names;
        Ok(Self {
            query: load(query, shape.query_size)?,
            key: load(key, shape.key_size)?,
            value: load(value, shape.key_size)?,
            out: Linear::load(&weights.scope(out), shape.inner_size, shape.query_size)?,
            heads: shape.heads,
            scale: (head_dim as f64).powf(-0.5),
        })
    }

    /// Queries `[batch, n, query_size]`, keys and values from `[batch, m, key_size]` → `[batch, n, query_size]`.
    pub(crate) fn forward<E: Engine<Tensor = T>>(
        &self,
        e: &E,
        query: &T,
        key: &T,
        value: &T,
        mask: Option<&T>,
    ) -> Result<T> {
        self.attend(e, query, &self.prepare(e, key, value)?, mask)
    }

    /// Attention of a sequence `[batch, n, query_size]` to itself.
    pub(crate) fn to_itself<E: Engine<Tensor = T>>(&self, e: &E, x: &T, mask: Option<&T>) -> Result<T> {
        self.forward(e, x, x, x, mask)
    }

    /// Keys and values of `[batch, m, key_size]`, to be attended to several times.
    pub(crate) fn prepare<E: Engine<Tensor = T>>(&self, e: &E, key: &T, value: &T) -> Result<KeyValue<T>> {
        Ok(KeyValue {
            key: e.split_heads(&self.key.forward(e, key)?, self.heads)?,
            value: e.split_heads(&self.value.forward(e, value)?, self.heads)?,
        })
    }

    /// Queries `[batch, n, query_size]` on prepared keys and values.
    pub(crate) fn attend<E: Engine<Tensor = T>>(
        &self,
        e: &E,
        query: &T,
        context: &KeyValue<T>,
        mask: Option<&T>,
    ) -> Result<T> {
        let query = e.split_heads(&self.query.forward(e, query)?, self.heads)?;
        let attended = e.attention(&query, &context.key, &context.value, self.scale, mask)?;
        self.out.forward(e, &e.merge_heads(&attended)?)
    }
}

impl Activation {
    pub(crate) fn forward<E: Engine>(self, e: &E, x: &E::Tensor) -> Result<E::Tensor> {
        match self {
            Self::QuickGelu => e.quick_gelu(x),
            Self::Gelu => e.gelu(x),
        }
    }
}
