//! The benchmark's measures against the values of its official script, which scored a miniature benchmark with a random
//! SqueezeNet (under the genuine linear heads) and with the pack's CLIP.

use std::path::{Path, PathBuf};

use image::RgbImage;
use serde_json::Value;
use smartedit_core::engine::Engine;
use smartedit_core::metrics::{Background, ClipScore, Lpips, Mask, edited_part};
use smartedit_core::picture::{DecodeOptions, decode};

smartedit_tests::matrix!(engine: perceptual_distances, clip_scores);

/// The pictures in the order in which the script scored them: the directories of benchmark and edits, and a name.
const ORDER: [(&str, &str, &str); 6] = [
    ("3-Mirror", "Mirror_metrics_3", "0001"),
    ("2-Relative-Size", "RelativeSize_metrics_2", "0001"),
    ("5-Multiple-Objects", "MultipleObjects_metrics_5", "0001"),
    ("4-Color", "Color_metrics_4", "0001"),
    ("1-Left-Right", "LeftRight_metrics_1", "0001"),
    ("1-Left-Right", "LeftRight_metrics_1", "0002"),
];

/// How far PSNR may be from the script's, in dB.
const DECIBELS: f64 = 1e-3;

/// How far CLIP score may be.
const CLIP: f64 = 1e-2;

/// How far any other measure may be.
const OTHER: f64 = 1e-4;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/metrics").join(name)
}

fn picture(name: &str) -> RgbImage {
    let path = file(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    decode(&bytes, &DecodeOptions::default()).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// An original, its edit and its mask.
fn pictures((original, edited, name): (&str, &str, &str)) -> (RgbImage, RgbImage, Mask) {
    (
        picture(&format!("bench/{original}/{name}.png")),
        picture(&format!("bench_edited/{edited}/{name}_T7.5_I1.5.png")),
        Mask::from_picture(&picture(&format!("bench/{original}/{name}_mask.jpg"))),
    )
}

/// What the script says of each picture by this name: `[name, value, …]`.
fn recorded(measure: &str) -> Vec<Value> {
    let json = std::fs::read(file("golden_metrics.json")).expect("golden_metrics.json is there");
    let json: Value = serde_json::from_slice(&json).expect("golden_metrics.json is JSON");
    let values = json["values_in_call_order"].as_array().expect("values are a list");
    let of_measure: Vec<_> = values.iter().filter(|value| value[0] == measure).cloned().collect();
    assert_eq!(of_measure.len(), ORDER.len(), "{measure}");
    of_measure
}

#[track_caller]
fn close(measure: &str, found: f64, expected: &Value, allowed: f64) {
    let difference = (found - expected[1].as_f64().expect("a number")).abs();
    assert!(difference <= allowed, "{measure}: {found} instead of {expected}");
}

#[test]
fn backgrounds() {
    let [psnr, ssim, mse] = ["psnr", "ssim", "mse"].map(recorded);
    for (index, place) in ORDER.into_iter().enumerate() {
        let (original, edited, mask) = pictures(place);
        let difference = Background::new(&original, &edited, &mask).difference();
        close("psnr", difference.psnr, &psnr[index], DECIBELS);
        close("ssim", difference.ssim, &ssim[index], OTHER);
        close("mse", difference.mse, &mse[index], OTHER * difference.mse);
    }
}

fn perceptual_distances<E: Engine>(e: &E) {
    let files = ["lpips_squeeze_random.safetensors", "lpips_squeeze_lin.safetensors"].map(file);
    let lpips = Lpips::open(e, &files).unwrap_or_else(|e| panic!("{e}"));
    for (expected, place) in recorded("lpips").iter().zip(ORDER) {
        let (original, edited, mask) = pictures(place);
        let background = Background::new(&original, &edited, &mask);
        close(
            "lpips",
            lpips.distance(e, &background).unwrap_or_else(|e| panic!("{e}")),
            expected,
            OTHER / 10.0,
        );
        let same = Background::new(&original, &original, &mask);
        let none = lpips.distance(e, &same).unwrap_or_else(|e| panic!("{e}"));
        assert!(none < 1e-9, "{none}");
    }
}

fn clip_scores<E: Engine>(e: &E) {
    let directory =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/pack_a/official/openai/clip-vit-large-patch14");
    let clip = ClipScore::open(e, &directory).unwrap_or_else(|e| panic!("{e}"));
    for (expected, place) in recorded("clip").iter().zip(ORDER) {
        let (_, edited, mask) = pictures(place);
        let part = edited_part(&edited, &mask).expect("something is edited");
        let size =
            [expected[3][2].as_u64(), expected[3][1].as_u64()].map(|side| side.expect("a side") as u32);
        assert_eq!(part.dimensions(), (size[0], size[1]), "{place:?}");
        let caption = expected[2].as_str().expect("a caption");
        close("clip", clip.score(e, &part, caption).unwrap_or_else(|e| panic!("{e}")), expected, CLIP);
    }
}
