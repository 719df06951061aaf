//! The operations that a UNet step spends its time in, at the sizes of Stable Diffusion 1.5, on every engine that is
//! built in.

#![allow(missing_docs, reason = "criterion's macros make public items without any")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ndarray::{ArrayD, IxDyn};
use smartedit_candle::CandleEngine;
use smartedit_core::engine::{Engine, Padding, Precision};

fn random<E: Engine>(engine: &E, shape: &[usize]) -> E::Tensor {
    let mut state = 1u32;
    let values = ArrayD::from_shape_fn(IxDyn(shape), |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    });
    let tensor = engine.upload(&values.into()).expect("an upload");
    engine.cast(&tensor).expect("a cast")
}

/// Throughput is counted in multiplications and additions.
fn operations<E: Engine>(criterion: &mut Criterion, name: &str, engine: &E) {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10);

    let (x, weight) = (random(engine, &[1, 2048, 2048]), random(engine, &[2048, 2048]));
    group.throughput(Throughput::Elements(2 * 2048u64.pow(3)));
    group.bench_function("linear 2048", |b| b.iter(|| engine.linear(&x, &weight, None)));

    let (x, weight) = (random(engine, &[1, 320, 64, 64]), random(engine, &[320, 320, 3, 3]));
    group.throughput(Throughput::Elements(2 * 320 * 320 * 9 * 64 * 64));
    group.bench_function("conv2d 320 3x3 at 64x64", |b| {
        b.iter(|| engine.conv2d(&x, &weight, None, 1, Padding::all(1)));
    });

    let q = random(engine, &[3, 8, 1024, 40]);
    group.throughput(Throughput::Elements(2 * 2 * 24 * 1024 * 1024 * 40));
    group.bench_function("attention 3x8 heads of 40 over 32x32", |b| {
        b.iter(|| engine.attention(&q, &q, &q, 0.158, None));
    });

    let x = random(engine, &[3, 320, 32, 32]);
    let (weight, bias) = (random(engine, &[320]), random(engine, &[320]));
    group.throughput(Throughput::Elements(3 * 320 * 32 * 32));
    group.bench_function("group_norm 320 at 32x32", |b| {
        b.iter(|| engine.group_norm(&x, 32, &weight, &bias, 1e-5));
    });
    group.bench_function("gelu 320 at 32x32", |b| b.iter(|| engine.gelu(&x)));
    group.finish();
}

fn engines(criterion: &mut Criterion) {
    for precision in [Precision::F32, Precision::Bf16] {
        operations(criterion, &format!("candle/{precision}"), &CandleEngine::cpu(precision));
        #[cfg(feature = "torch")]
        operations(criterion, &format!("torch/{precision}"), &smartedit_torch::TorchEngine::cpu(precision));
    }
}

criterion_group!(benches, engines);
criterion_main!(benches);
