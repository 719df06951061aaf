//! One step of Stable Diffusion 1.5's UNet, with the image latents of InstructPix2Pix, at 32×32 latents in a batch of
//! three, on random weights.
//!
//! `RAYON_NUM_THREADS` sets the threads.

#![allow(missing_docs, reason = "criterion's macros make public items without any")]

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ndarray::{ArrayD, IxDyn, arr1};
use smartedit_candle::CandleEngine;
use smartedit_core::engine::{Engine, Precision};
use smartedit_core::model::{NetworkConfig, Preset};
use smartedit_core::networks::{Unet, random_weights};
use smartedit_core::stage::StageKind;
use smartedit_core::tensor::HostTensor;
use smartedit_core::weights::{EngineWeights, Weights};

/// Multiplications and additions of the step's matrix products, convolutions and attentions.
const OPERATIONS: u64 = 531_500_000_000;

/// The UNet of the preset.
fn config() -> NetworkConfig {
    let stages = Preset::Sd15.config().stages;
    stages.get(&StageKind::Denoiser).expect("the preset has a UNet").network.clone()
}

/// Even in −`bound`…`bound`.
fn random(generator: &mut fastrand::Rng, shape: &[usize], bound: f32) -> HostTensor {
    ArrayD::from_shape_fn(IxDyn(shape), |_| (2.0 * generator.f32() - 1.0) * bound).into()
}

fn to_engine<E: Engine>(engine: &E, tensor: &HostTensor) -> E::Tensor {
    engine.upload(tensor).and_then(|tensor| engine.cast(&tensor)).expect("an upload")
}

fn step<E: Engine>(criterion: &mut Criterion, name: &str, engine: &E, precision: Precision) {
    let NetworkConfig::Denoiser(config) = config() else { unreachable!("a denoiser's network is a UNet") };
    let file = random_weights(&NetworkConfig::Denoiser(config.clone()), precision, 1).expect("enough memory");
    let source = EngineWeights::new(engine, &file);
    let unet = Unet::load(&Weights::root(&source), &config).expect("the sizes agree");
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
        step(criterion, &format!("candle/{precision}"), &CandleEngine::cpu(precision), precision);
        #[cfg(feature = "torch")]
        step(
            criterion,
            &format!("torch/{precision}"),
            &smartedit_torch::TorchEngine::cpu(precision),
            precision,
        );
    }
}

criterion_group!(benches, steps);
criterion_main!(benches);
