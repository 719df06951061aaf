//! One step of Stable Diffusion 1.5's UNet, with the image latents of InstructPix2Pix, at 32×32 latents in a batch of
//! three, on random weights.
//!
//! `RAYON_NUM_THREADS` sets the threads.

#![allow(missing_docs, reason = "criterion's macros make public items without any")]

use std::cell::RefCell;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ndarray::{ArrayD, IxDyn, arr1};
use smartedit_candle::CandleEngine;
use smartedit_core::engine::{Engine, Precision};
use smartedit_core::model::UnetConfig;
use smartedit_core::networks::Unet;
use smartedit_core::tensor::HostTensor;
use smartedit_core::weights::{self, WeightSource, Weights};

/// Multiplications and additions of the step's matrix products, convolutions and attentions.
const OPERATIONS: u64 = 531_500_000_000;

fn config() -> UnetConfig {
    UnetConfig {
        in_channels: 8,
        out_channels: 4,
        block_channels: vec![320, 640, 1280, 1280],
        block_attention: vec![true, true, true, false],
        num_heads: vec![8; 4],
        layers_per_block: 2,
        cross_attention_dim: 768,
        norm_groups: 32,
        norm_eps: 1e-5,
        flip_sin_to_cos: true,
        freq_shift: 0.0,
    }
}

/// Even in −`bound`…`bound`.
fn random(generator: &mut fastrand::Rng, shape: &[usize], bound: f32) -> HostTensor {
    ArrayD::from_shape_fn(IxDyn(shape), |_| (2.0 * generator.f32() - 1.0) * bound).into()
}

fn to_engine<E: Engine>(engine: &E, tensor: &HostTensor) -> E::Tensor {
    engine.upload(tensor).and_then(|tensor| engine.cast(&tensor)).expect("an upload")
}

/// Weights that keep the magnitude of what passes through them.
struct RandomWeights<'a, E> {
    engine: &'a E,
    generator: RefCell<fastrand::Rng>,
}

impl<E: Engine> WeightSource<E::Tensor> for RandomWeights<'_, E> {
    fn parameter(&self, _: &str, shape: &[usize]) -> weights::Result<E::Tensor> {
        let inputs: usize = shape.iter().skip(1).product();
        let bound = (3.0 / inputs as f32).sqrt();
        Ok(to_engine(self.engine, &random(&mut self.generator.borrow_mut(), shape, bound)))
    }

    fn host(&self, _: &str, shape: &[usize]) -> weights::Result<ArrayD<f32>> {
        Ok(ArrayD::zeros(IxDyn(shape)))
    }

    fn constant(&self, _: &str, value: HostTensor) -> weights::Result<E::Tensor> {
        Ok(to_engine(self.engine, &value))
    }
}

fn step<E: Engine>(criterion: &mut Criterion, name: &str, engine: &E) {
    let weights = RandomWeights { engine, generator: RefCell::new(fastrand::Rng::with_seed(1)) };
    let unet = Unet::load(&Weights::root(&weights), &config()).expect("the sizes agree");
    let mut generator = fastrand::Rng::with_seed(2);
    let sample = to_engine(engine, &random(&mut generator, &[3, 8, 32, 32], 1.7));
    let context = to_engine(engine, &random(&mut generator, &[3, 77, 768], 1.7));
    let timesteps = engine.upload(&arr1(&[500.0f32; 3]).into()).expect("an upload");
    let context = unet.prepare(engine, &context).expect("keys and values");

    let mut group = criterion.benchmark_group("unet step");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(40))
        .throughput(Throughput::Elements(OPERATIONS));
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            let noise = unet.forward(engine, &sample, &timesteps, &context, None).expect("a step");
            engine.download(&noise).expect("a download")
        });
    });
    group.finish();
}

fn steps(criterion: &mut Criterion) {
    for precision in [Precision::F32, Precision::Bf16] {
        step(criterion, &format!("candle/{precision}"), &CandleEngine::cpu(precision));
        #[cfg(feature = "torch")]
        step(criterion, &format!("torch/{precision}"), &smartedit_torch::TorchEngine::cpu(precision));
    }
}

criterion_group!(benches, steps);
criterion_main!(benches);
