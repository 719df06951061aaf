//! What parameters begin with.

use std::f64::consts::TAU;

use smartedit_core::stage::StageKind;
use tch::{Kind, Tensor};

/// Initial values of a parameter. Matrices and kernels are normal with variance 1 / fan-in; norms do nothing; what
/// ends a residual branch of a UNet or an autoencoder, and the heads of a BIM (SPEC: "zero-initialised"), is zero.
pub(crate) fn values(kind: StageKind, name: &str, shape: &[i64]) -> Tensor {
    let options = (Kind::Float, tch::Device::Cpu);
    let normal = |std: f64| Tensor::randn(shape, options) * std;
    if begins_at_zero(kind, name) {
        return Tensor::zeros(shape, options);
    }
    if name.ends_with("position_embedding.weight") {
        return positions(shape, kind == StageKind::VisionEncoder);
    }
    match shape {
        [_] if name.ends_with("bias") => Tensor::zeros(shape, options),
        [_] if name.ends_with("weight") => Tensor::ones(shape, options),
        _ if name.ends_with("gaussian_matrix") => normal(1.0),
        _ if ["token_embedding.weight", "embed_tokens.weight", "query_tokens", "class_embedding"]
            .iter()
            .any(|table| name.ends_with(table)) =>
        {
            normal(0.3)
        }
        [_, inputs @ ..] => normal((inputs.iter().product::<i64>() as f64).powf(-0.5) * branch(name)),
        [] => Tensor::zeros(shape, options),
    }
}

fn begins_at_zero(kind: StageKind, name: &str) -> bool {
    let ends_branch =
        [".conv2.", ".proj_out.", ".attentions.0.to_out.0."].iter().any(|part| name.contains(part));
    match kind {
        StageKind::Denoiser => ends_branch || name.starts_with("conv_out."),
        StageKind::VaeEncoder | StageKind::VaeDecoder => ends_branch,
        StageKind::Connector => name.contains("dimension_reduction_head"),
        _ => false,
    }
}

/// By how much what a transformer's branch adds to its residual stream begins smaller.
fn branch(name: &str) -> f64 {
    let ends = ["out_proj.weight", "fc2.weight", "o_proj.weight", "down_proj.weight"];
    if ends.iter().any(|end| name.ends_with(end)) { 0.5 } else { 1.0 }
}

/// Sines and cosines of amplitude ½: learned positions that began near zero would be drowned by the tokens for a
/// long time. A picture's rows encode the place in its square grid, and the class token's row is zero.
fn positions(shape: &[i64], in_grid: bool) -> Tensor {
    let &[rows, width] = shape else { return Tensor::zeros(shape, tch::kind::FLOAT_CPU) };
    let (rows, width) = (rows as usize, width as usize);
    let side = ((rows.saturating_sub(1)) as f64).sqrt().round().max(1.0);
    let wave = |place: f64, channel: usize, channels: usize| {
        let frequency = 0.25 * 64f64.powf(-((channel / 2) as f64) / (channels as f64 / 2.0));
        let angle = TAU * place * frequency;
        0.5 * if channel.is_multiple_of(2) { angle.sin() } else { angle.cos() }
    };
    let value = |row: usize, channel: usize| match in_grid {
        false => wave(row as f64, channel, width),
        true if row == 0 => 0.0,
        true => {
            let (cell, half) = ((row - 1) as f64, width / 2);
            let (x, y) = (cell % side, (cell / side).floor());
            if channel < half { wave(x, channel, half) } else { wave(y, channel - half, half) }
        }
    };
    let values: Vec<f32> =
        (0..rows * width).map(|index| value(index / width, index % width) as f32).collect();
    Tensor::from_slice(&values).reshape(shape)
}
