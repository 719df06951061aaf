//! Benchmarks, edits and servers that cannot be used.

use image::{ImageFormat, RgbImage};
use serde_json::json;

use super::benchmark::{Benchmark, SCENARIOS, directory};
use super::{MODEL, golden, names};
use crate::running::{file, png};

#[test]
fn a_directory_without_scenarios_is_no_benchmark() {
    let place = Benchmark::new();
    let empty = tempfile::tempdir().unwrap();
    let evaluate = |path: &str| super::run(["evaluate", path, "--edited", &place.path("bench")]);
    evaluate(empty.path().to_str().unwrap()).failed(1, &["1-Left-Right", "6-Reasoning"]);
    evaluate(&place.path("nowhere")).failed(1, &["nowhere", "No such file"]);
}

#[test]
fn everything_that_is_wrong_with_a_benchmark_is_told_at_once() {
    let place = Benchmark::new();
    let [left, size, mirror, color, multiple, reasoning] = SCENARIOS.each_ref().map(directory);
    place.remove(&format!("{left}/0002_mask.jpg"));
    place.write(&format!("{size}/Size_text.txt"), "Make it blue\n CLIP: a blue square\n");
    place.write(&format!("{mirror}/0001.png"), "no picture");
    place.write(&format!("{color}/0002_mask.jpg"), file(&RgbImage::new(64, 64), ImageFormat::Jpeg));
    let white = RgbImage::from_pixel(32, 64, image::Rgb([255; 3]));
    place.write(&format!("{multiple}/0001_mask.jpg"), file(&white, ImageFormat::Jpeg));
    place.remove(&format!("{reasoning}/Reason_test.txt"));
    let ended = place.evaluate(&["--model", MODEL]);
    ended.failed(
        1,
        &[
            "1-Left-Right: 2 pictures (*.png), 1 masks (*_mask.jpg) and 2 lines",
            "Size_text.txt, line 1: there is no `CLIP: `",
            "Size_text.txt, line 2: there is no instruction",
            "3-Mirror/0001.png: the image is neither PNG",
            "4-Color/0002_mask.jpg: the mask is black",
            "5-Multiple-Objects/0001_mask.jpg: is 32×64 pixels, the picture 64×64",
            "Reason_test.txt: No such file",
        ],
    );
    assert_eq!(names(place.root()), ["bench"]);
}

#[test]
fn a_scenario_that_is_there_twice_is_refused() {
    let place = Benchmark::new();
    place.write("bench/copy/1-Left-Right/0001.png", png(&RgbImage::new(8, 8)));
    place.evaluate(&["--model", MODEL]).failed(1, &["copy/1-Left-Right", "one directory for each scenario"]);
}

#[test]
fn outcomes_that_contradict_the_benchmark_are_told_at_once() {
    let place = Benchmark::new();
    let mut outcomes = place.outcomes();
    let scenarios = &mut outcomes["scenarios"];
    scenarios["left-right"][0]["instruction"] = json!("Make it green");
    scenarios["relative-size"].as_array_mut().unwrap().pop();
    scenarios["mirror"][1]["image"] = json!("0007");
    scenarios["color"][0]["target"] = json!("../../somewhere.png");
    scenarios["colour"] = json!([]);
    place.write_outcomes(&outcomes);
    place.write("bench/outcomes/multiple-objects/0001/place-1.png", png(&RgbImage::new(8, 8)));
    let target = std::fs::read(place.path("bench/outcomes/reasoning/0002/target.png")).unwrap();
    place.write("bench/outcomes/reasoning/0002/class-green.png", target);
    let source = std::fs::read(place.path("bench/Reason-Edit/6-Reasoning/0003.png")).unwrap();
    place.write("bench/outcomes/reasoning/0003/target.png", source);
    place.remove("bench/outcomes/reasoning/0004/target.png");
    place.evaluate(&["--model", MODEL]).failed(
        1,
        &[
            "9 problems",
            "left-right/0001: the entry has the instruction \"Make it green\"",
            "relative-size: 1 entries for 2 instructions",
            "mirror/0002: the entry is of image `0007`",
            "color/0001: ../../somewhere.png: is no path within",
            "no scenario `colour`",
            "multiple-objects/0001/place-1.png: is 8×8 pixels, the picture 64×64",
            "reasoning/0002/class-green.png: shows the same as the target",
            "reasoning/0003/target.png: the target shows the same as the picture",
            "reasoning/0004/target.png: No such file",
        ],
    );
    place.write("bench/outcomes/outcomes.json", json!({ "format": 2, "scenarios": {} }).to_string());
    place.evaluate(&["--model", MODEL]).failed(1, &["outcomes.json", "format 2"]);
    place.write("bench/outcomes/outcomes.json", "{");
    place.evaluate(&["--model", MODEL]).failed(1, &["outcomes.json", "EOF"]);
}

#[test]
fn edited_pictures_that_are_missing_are_told_at_once() {
    let place = Benchmark::new();
    place.write_edited("right", |scene| scene.target());
    place.remove("right/LeftRight_metrics_1/0002_T7.5_I1.5.png");
    place.write("right/Mirror_metrics_3/0001_T3_I1.png", png(&RgbImage::new(8, 8)));
    place.write("right/Color_metrics_4/0001_T7.5_I1.5.png", "no picture");
    std::fs::remove_dir_all(place.path("right/Reasoning_metrics_1")).unwrap();
    place.evaluate(&["--edited", &place.path("right")]).failed(
        1,
        &[
            "LeftRight_metrics_1: there is no 0002.png",
            "Mirror_metrics_3: both 0001_T3_I1.png and 0001_T7.5_I1.5.png",
            "Color_metrics_4/0001_T7.5_I1.5.png: the image is neither PNG",
            "no directory …Reasoning_metrics_1",
        ],
    );
}

#[test]
fn what_cannot_be_evaluated_is_named_before_anything_is_done() {
    let place = Benchmark::new();
    place.evaluate(&["--model", MODEL, "-d", "nobody"]).failed(2, &["`nobody`"]);
    place.evaluate(&["--model", MODEL, "-d", "default", "-d", "default"]).failed(2, &["`default`"]);
    place.evaluate(&["--server", "127.0.0.1:1"]).failed(1, &["127.0.0.1:1"]);
    place.evaluate(&["--html", "nowhere/page.html"]).failed(1, &["nowhere"]);
    place.evaluate(&["--resize-mode", "fit"]).failed(2, &["--resize-mode"]);
    place.evaluate(&["--edited", "a", "--edited", "b", "-d", "a"]).failed(2, &["--edited", "--deployment"]);
    place.evaluate(&["--edited", "x/same", "--edited", "y/same"]).failed(2, &["`same`", "--deployment"]);
    place.evaluate(&["--clip", "nowhere"]).failed(1, &["nowhere"]);
    let heads = golden("metrics/lpips_squeeze_lin.safetensors");
    place.evaluate(&["--lpips-weights", &heads]).failed(1, &["features.0.weight", "lpips_squeeze_lin"]);
    assert_eq!(names(place.root()), ["bench"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_must_have_the_deployment() {
    let served = super::Served::configured(&super::configuration());
    let place = Benchmark::new();
    place.evaluate(&["--server", served.address(), "-d", "nobody"]).failed(1, &["`nobody`"]);
    assert_eq!(names(place.root()), ["bench"]);
}
