//! The same edit on two engines.

#![allow(clippy::print_stdout, reason = "what was measured is shown")]

use std::path::Path;
use std::sync::Arc;

use image::RgbImage;
use smartedit_core::engine::Precision;
use smartedit_core::pipeline::{EditOptions, EditRequest, Model};
use smartedit_core::stage::StageOptions;
use smartedit_tests::engines::Row;
use smartedit_tests::golden::converted;
use smartedit_tests::tolerance::psnr;

use crate::replay;

smartedit_tests::matrix!(pair:
    golden_pack_in_f32,
    golden_pack_in_bf16,
    default_model_in_f32,
    default_model_in_bf16,
);

/// Decibels that the pictures of two engines must reach, and by how many levels a value may differ.
fn bar(precision: Precision) -> (f64, u8) {
    match precision {
        Precision::F32 => (50.0, 2),
        Precision::Bf16 | Precision::F16 => (35.0, u8::MAX),
    }
}

fn agree(rows: [&Row; 2], precision: Precision, directory: &Path, edit: impl Fn(&Arc<Model>) -> RgbImage) {
    let [a, b] = rows.map(|row| {
        let options = StageOptions { precision, ..row.options.clone() };
        let load = |config: &_, weights: &_| row.backend.load(config, weights, &options);
        let model = Model::load(directory, load).unwrap_or_else(|e| panic!("{}: {e}", row.name));
        edit(&Arc::new(model))
    });
    let worst = a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0);
    let (ratio, [a, b]) = (psnr(&a, &b), rows.map(|row| row.name));
    println!("{a} and {b} in {precision}: {ratio:.1} dB, largest difference {worst}");
    let (least, most) = bar(precision);
    assert!(ratio >= least, "{a} and {b} in {precision}: {ratio:.1} dB");
    assert!(worst <= most, "{a} and {b} in {precision}: a value differs by {worst} levels");
}

fn golden_pack(a: &Row, b: &Row, precision: Precision) {
    agree([a, b], precision, &converted().smartedit(), |model| replay::edit(model).0.image);
}

/// The model that ships with the server, as it is served.
fn default_model(a: &Row, b: &Row, precision: Precision) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let image = replay::example();
    agree([a, b], precision, &root.join("models/emoji"), |model| {
        let options = EditOptions { seed: 7, ..EditOptions::default() };
        let instruction = "Change the left animal to a fox".to_owned();
        replay::run(model, EditRequest { image: image.clone(), instruction, options }).0.image
    });
}

fn golden_pack_in_f32(a: &Row, b: &Row) {
    golden_pack(a, b, Precision::F32);
}

fn golden_pack_in_bf16(a: &Row, b: &Row) {
    golden_pack(a, b, Precision::Bf16);
}

fn default_model_in_f32(a: &Row, b: &Row) {
    default_model(a, b, Precision::F32);
}

fn default_model_in_bf16(a: &Row, b: &Row) {
    default_model(a, b, Precision::Bf16);
}
