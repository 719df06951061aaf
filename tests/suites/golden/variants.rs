//! The first recorded edit in another precision, and with the connectors of the paper's ablation (section 4.3).

#![allow(clippy::unwrap_used, reason = "what helpers unwrap is part of the tests that call them")]
#![allow(clippy::print_stdout, reason = "what was measured is shown")]

use std::path::Path;
use std::sync::Arc;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use smartedit_core::engine::Precision;
use smartedit_core::model::{InteractionConfig, ModelWriter, NetworkConfig, SimpleCaConfig, WriteError};
use smartedit_core::networks::manifest;
use smartedit_core::pipeline::Model;
use smartedit_core::stage::{StageKind, StageOptions};
use smartedit_tests::engines::Row;
use smartedit_tests::golden::{converted, load, open};
use smartedit_tests::tolerance::psnr;

use crate::replay::edit;

smartedit_tests::matrix!(edit:
    bf16,
    connector_ablations,
);

fn bf16(row: &Row) {
    let directory = converted().smartedit();
    let options = StageOptions { precision: Precision::Bf16, ..row.options.clone() };
    let model = |options: &StageOptions| {
        let load = |config: &_, weights: &_| row.backend.load(config, weights, options);
        Arc::new(Model::load(&directory, load).unwrap())
    };
    let (narrow, latents) = edit(&model(&options));
    let (wide, _) = edit(&model(&row.options));
    assert!(latents.iter().all(|value| value.is_finite()));
    let psnr = psnr(&narrow.image, &wide.image);
    println!("{}: the picture of bf16 against that of f32: {psnr:.1} dB", row.name);
    assert!(psnr >= 30.0, "{psnr:.1} dB");
}

/// Values around zero without a pattern; for what norms multiply by, around one.
fn values(name: &str, shape: &[usize]) -> Vec<u8> {
    let seed = name.bytes().fold(7_u32, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    let (mut state, count) = (seed, shape.iter().product());
    let around = if name.ends_with("norm.weight") || name.ends_with("LayerNorm.weight") { 1.0 } else { 0.0 };
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        around + 0.2 * ((state >> 8) as f32 / (1 << 23) as f32 - 1.0)
    };
    std::iter::repeat_with(next).take(count).flat_map(f32::to_le_bytes).collect()
}

/// Writes the pack's SmartEdit model with another interaction of text and image, whose weights are made up. The
/// rest of the connector keeps its own.
fn write(out: &Path, interaction: InteractionConfig) {
    let directory = open(&converted().smartedit());
    let mut config = directory.config().clone();
    let stage = config.stages.get_mut(&StageKind::Connector).expect("SmartEdit has a connector");
    let own = directory.stage_weights(StageKind::Connector).unwrap().unwrap();
    let NetworkConfig::Connector(connector) = &mut stage.network else { panic!("another network") };
    connector.interaction = interaction;

    let parameters: Vec<_> = manifest(&stage.network)
        .unwrap()
        .into_iter()
        .map(|(name, shape)| {
            let kept = own.view(&name, &shape).map(|view| view.to_f32());
            let bytes = match kept {
                Ok(kept) => kept.into_iter().flat_map(f32::to_le_bytes).collect(),
                Err(_) => values(&name, &shape),
            };
            (name, shape, bytes)
        })
        .collect();
    let views = parameters.iter().map(|(name, shape, bytes)| {
        (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    let file = safetensors::serialize(views, None).unwrap();

    let mut writer = ModelWriter::create(out).unwrap();
    for name in config.files.keys().filter(|name| **name != stage.file) {
        writer.copy(&directory.file(name), name).unwrap();
    }
    writer.write::<WriteError>(&stage.file, |sink| sink.put(&file)).unwrap();
    writer.finish(config).unwrap();
    open(out).verify().unwrap();
}

fn connector_ablations(row: &Row) {
    let directory = open(&converted().smartedit());
    let Some(NetworkConfig::Connector(connector)) =
        directory.config().stages.get(&StageKind::Connector).map(|stage| &stage.network)
    else {
        panic!("SmartEdit has a connector")
    };
    let InteractionConfig::Bim(bim) = &connector.interaction else { panic!("SmartEdit has a BIM") };
    let simple = SimpleCaConfig {
        vision_size: bim.vision_size,
        num_heads: connector.qformer.num_heads,
        layer_norm_eps: bim.layer_norm_eps,
    };

    let place = tempfile::tempdir().unwrap();
    let edited = |name: &str, interaction: InteractionConfig| {
        let out = place.path().join(name);
        write(&out, interaction);
        edit(&load(row, &out))
    };
    let (bim, bim_latents) = edited("bim", connector.interaction.clone());
    let (plain, plain_latents) = edited("plain", InteractionConfig::Plain);
    let (simple, simple_latents) = edited("simple-ca", InteractionConfig::SimpleCa(simple));

    let (recorded, _) = edit(&load(row, &converted().smartedit()));
    assert_eq!(bim.image, recorded.image, "a connector that is written anew is the same one");
    for (what, a, b) in [
        ("plain and SimpleCA", (&plain, &plain_latents), (&simple, &simple_latents)),
        ("plain and BIM", (&plain, &plain_latents), (&bim, &bim_latents)),
        ("SimpleCA and BIM", (&simple, &simple_latents), (&bim, &bim_latents)),
    ] {
        let distance = (a.1 - b.1).iter().fold(0.0f32, |max, value| max.max(value.abs()));
        println!("{}: {what}: latents differ by up to {distance:.3}", row.name);
        assert!(distance > 1e-2, "{what}: {distance}");
        assert_ne!(a.0.image, b.0.image, "{what}");
    }
}
