//! Muon for matrices and kernels inside a network, AdamW for the rest.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use crate::parameters::Parameters;

/// How parameters are changed.
pub struct Optimizer {
    rule: Rule,
    moments: BTreeMap<String, Moments>,
    clip_norm: f64,
}

/// Which parameters Muon changes; AdamW changes the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// Matrices and kernels inside a network (Jordan et al., 2024), with ten times the learning rate.
    Muon,
    /// None.
    AdamW,
}

enum Moments {
    Muon { momentum: Tensor },
    AdamW { mean: Tensor, square: Tensor },
}

/// By how much Muon's learning rate exceeds AdamW's.
const MUON_FACTOR: f64 = 10.0;
const MUON_MOMENTUM: f64 = 0.95;
const ADAM_BETAS: (f64, f64) = (0.9, 0.99);
const ADAM_EPS: f64 = 1e-8;

impl Optimizer {
    /// Begins without momentum. Gradients are scaled down to `clip_norm` together where their norm exceeds it.
    pub fn new(rule: Rule, clip_norm: f64) -> Self {
        Self { rule, moments: BTreeMap::new(), clip_norm }
    }

    /// Changes the trained parameters along their gradients, and forgets those. `learning_rate` is that of a
    /// parameter's name; the step is counted from 0.
    ///
    /// Returns the gradients' norm.
    pub fn step(&mut self, parameters: &Parameters, learning_rate: impl Fn(&str) -> f64, step: usize) -> f64 {
        tch::no_grad(|| {
            let trained: Vec<(&str, Tensor, Tensor)> = parameters
                .trained()
                .filter_map(|(name, tensor)| {
                    let gradient = tensor.grad();
                    gradient.defined().then(|| (name, tensor.shallow_clone(), gradient))
                })
                .collect();
            let squares: Vec<Tensor> =
                trained.iter().map(|(.., gradient)| gradient.square().sum(Kind::Float)).collect();
            let norm = if squares.is_empty() {
                0.0
            } else {
                Tensor::stack(&squares, 0).sum(Kind::Float).double_value(&[]).sqrt()
            };
            if !norm.is_finite() {
                for (_, mut tensor, _) in trained {
                    tensor.zero_grad();
                }
                return norm;
            }
            let clip = if norm > self.clip_norm { self.clip_norm / norm } else { 1.0 };
            for (name, mut tensor, gradient) in trained {
                let gradient = gradient * clip;
                let is_new = !self.moments.contains_key(name);
                if is_new {
                    self.moments.insert(name.to_owned(), Moments::of(self.rule, name, &tensor));
                }
                if let Some(moments) = self.moments.get_mut(name) {
                    let update = moments.update(&gradient, learning_rate(name), step);
                    let _ = tensor.g_sub_(&update);
                }
                tensor.zero_grad();
            }
            norm
        })
    }

    /// The momentum of each parameter, to be kept in a checkpoint.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let parts = |(name, moments): (&String, &Moments)| match moments {
            Moments::Muon { momentum } => vec![(format!("muon/{name}"), momentum.shallow_clone())],
            Moments::AdamW { mean, square } => vec![
                (format!("mean/{name}"), mean.shallow_clone()),
                (format!("square/{name}"), square.shallow_clone()),
            ],
        };
        self.moments.iter().flat_map(parts).collect()
    }

    /// Goes on with what [`Optimizer::state`] gave; other names are ignored.
    pub fn restore(&mut self, state: &Parameters) {
        for (name, tensor) in state.of("muon") {
            self.moments.insert(name.to_owned(), Moments::Muon { momentum: tensor.shallow_clone() });
        }
        for (name, mean) in state.of("mean") {
            if let Some(square) = state.get(&format!("square/{name}")) {
                let moments = Moments::AdamW { mean: mean.shallow_clone(), square: square.shallow_clone() };
                self.moments.insert(name.to_owned(), moments);
            }
        }
    }
}

impl Moments {
    fn of(rule: Rule, name: &str, tensor: &Tensor) -> Self {
        if rule == Rule::Muon && is_inner_matrix(name, &tensor.size()) {
            return Self::Muon { momentum: tensor.zeros_like() };
        }
        Self::AdamW { mean: tensor.zeros_like(), square: tensor.zeros_like() }
    }

    /// What is to be subtracted from the parameter.
    fn update(&mut self, gradient: &Tensor, learning_rate: f64, step: usize) -> Tensor {
        match self {
            Self::Muon { momentum } => {
                let _ = momentum.g_mul_scalar_(MUON_MOMENTUM).g_add_(gradient);
                let nesterov = gradient + &*momentum * MUON_MOMENTUM;
                orthogonal(&nesterov) * (MUON_FACTOR * learning_rate)
            }
            Self::AdamW { mean, square } => {
                let (first, second) = ADAM_BETAS;
                let _ = mean.g_mul_scalar_(first).g_add_(&(gradient * (1.0 - first)));
                let _ = square.g_mul_scalar_(second).g_add_(&(gradient.square() * (1.0 - second)));
                let count = (step + 1) as f64;
                let (first, second) = (1.0 - first.powf(count), 1.0 - second.powf(count));
                (&*mean * (learning_rate / first)) / ((&*square / second).sqrt() + ADAM_EPS)
            }
        }
    }
}

/// Whether Muon is meant for a parameter: not for tables of embeddings, not for what enters or leaves a network.
fn is_inner_matrix(name: &str, shape: &[i64]) -> bool {
    const OUTER: [&str; 11] = [
        "embed",
        "query_tokens",
        "conv_in",
        "conv_out",
        "lm_head",
        "mm_projector",
        "quant_conv",
        "dimension_reduction_head",
        "lora_",
        "gaussian",
        "heads/",
    ];
    shape.len() >= 2 && !OUTER.iter().any(|outer| name.contains(outer))
}

/// The nearest matrix with singular values of about 1, by five Newton-Schulz iterations, scaled such that tall
/// matrices change as much as wide ones. A kernel counts as a matrix of one row for each output.
fn orthogonal(gradient: &Tensor) -> Tensor {
    const COEFFICIENTS: (f64, f64, f64) = (3.4445, -4.7750, 2.0315);
    let shape = gradient.size();
    let rows = shape[0];
    let matrix = gradient.reshape([rows, -1]);
    let columns = matrix.size()[1];
    let tall = rows > columns;
    let mut x = if tall { matrix.tr() } else { matrix };
    x = (&x / (x.norm() + 1e-7)).to_kind(Kind::BFloat16);
    let (a, b, c) = COEFFICIENTS;
    for _ in 0..5 {
        let square = x.matmul(&x.tr());
        let polynomial = &square * b + square.matmul(&square) * c;
        x = &x * a + polynomial.matmul(&x);
    }
    let x = if tall { x.tr() } else { x };
    x.to_kind(Kind::Float).reshape(&shape) * (rows as f64 / columns as f64).max(1.0).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newton_schulz_brings_singular_values_near_one() {
        tch::manual_seed(3);
        for shape in [vec![24, 16], vec![16, 24], vec![8, 4, 3, 3]] {
            let update = orthogonal(&Tensor::randn(&shape, tch::kind::FLOAT_CPU));
            let (rows, columns) = (shape[0], shape[1..].iter().product::<i64>());
            let scale = (rows as f64 / columns as f64).max(1.0).sqrt();
            let (_, singular, _) = (update.reshape([rows, -1]) / scale).svd(true, true);
            let (low, high) = (singular.min().double_value(&[]), singular.max().double_value(&[]));
            assert!(low > 0.5 && high < 1.4, "{shape:?}: {low} to {high}");
        }
    }

    /// One step of AdamW without weight decay moves every element by the learning rate against its gradient.
    #[test]
    fn the_first_step_of_adam_is_the_learning_rate_in_each_direction() {
        let mut parameters = Parameters::default();
        parameters.insert("a/bias", Tensor::from_slice(&[1.0f32, -2.0, 3.0]));
        parameters.train_only(|_| true);
        let loss =
            (parameters.get("a/bias").unwrap() * Tensor::from_slice(&[2.0f32, -0.5, 0.25])).sum(Kind::Float);
        loss.backward();
        let norm = Optimizer::new(Rule::AdamW, 100.0).step(&parameters, |_| 0.1, 0);
        assert!((norm - (4.0f64 + 0.25 + 0.0625).sqrt()).abs() < 1e-6, "{norm}");
        let moved = Vec::<f32>::try_from(parameters.get("a/bias").unwrap().detach()).unwrap();
        for (found, expected) in moved.iter().zip([0.9, -1.9, 2.9]) {
            assert!((found - expected).abs() < 1e-5, "{moved:?}");
        }
    }

    #[test]
    fn gradients_are_clipped_together_and_what_is_not_finite_changes_nothing() {
        let mut parameters = Parameters::default();
        parameters.insert("a/weight", Tensor::zeros([4, 4], tch::kind::FLOAT_CPU));
        parameters.train_only(|_| true);
        let weight = parameters.get("a/weight").unwrap().shallow_clone();
        (&weight * f64::NAN).sum(Kind::Float).backward();
        assert!(!Optimizer::new(Rule::Muon, 1.0).step(&parameters, |_| 0.1, 0).is_finite());
        assert_eq!(weight.abs().sum(Kind::Float).double_value(&[]), 0.0);
    }
}
