//! `smartedit evaluate`.

mod benchmark;
mod judges;
mod unusable;

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::serve::Served;
use super::{Ended, names, run, smartedit, text};
use benchmark::{Benchmark, SCENARIOS};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny-random");

/// Two deployments of the shipped model.
fn configuration() -> String {
    format!(
        "default_deployment = \"wide\"\n\
         [deployments.wide]\nmodel = {MODEL:?}\n\
         [deployments.narrow]\nmodel = {MODEL:?}\nprecision = \"bf16\"\n"
    )
}

fn golden(name: &str) -> String {
    format!("{}/golden/{name}", env!("CARGO_MANIFEST_DIR"))
}

impl Benchmark {
    /// Evaluates, and writes all scores to `scores.json`.
    fn evaluate(&self, more: &[&str]) -> Ended {
        run([&["evaluate", &self.path("bench"), "--json", &self.path("scores.json")], more].concat())
    }

    fn scores(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.path("scores.json")).unwrap()).unwrap()
    }
}

#[track_caller]
fn close(found: &Value, expected: f64, allowed: f64) {
    let found = found.as_f64().unwrap_or_else(|| panic!("{found} is no number"));
    assert!((found - expected).abs() <= allowed, "{found} instead of {expected}");
}

/// The totals are those that the official script printed.
#[test]
fn pictures_edited_elsewhere_get_the_official_scores() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| text(&place.path().join(name)).to_owned();
    let ended = run([
        "evaluate",
        &golden("metrics/bench"),
        "--edited",
        &golden("metrics/bench_edited"),
        "--lpips-weights",
        &golden("metrics/lpips_squeeze_random.safetensors"),
        "--lpips-weights",
        &golden("metrics/lpips_squeeze_lin.safetensors"),
        "--clip",
        &golden("pack_a/official/openai/clip-vit-large-patch14"),
        "--json",
        &path("scores.json"),
        "--markdown",
        &path("scores.md"),
    ]);
    ended.succeeded();
    let scores: Value = serde_json::from_slice(&std::fs::read(path("scores.json")).unwrap()).unwrap();
    let found = &scores["deployments"]["bench_edited"];
    assert_eq!(found["understanding"]["count"], 6);
    close(&found["understanding"]["psnr"], 29.59883753458659, 1e-3);
    close(&found["understanding"]["lpips"], 0.005860031465999782, 1e-4);
    close(&found["understanding"]["mse"], 0.001143919265208145, 1e-4);
    close(&found["understanding"]["ssim"], 0.6770586967468262, 1e-4);
    close(&found["understanding"]["clip_score"], 24.875181198120117, 1e-2);
    close(&found["scenarios"]["mirror"]["clip_score"], 31.504955291748047, 1e-2);
    assert_eq!(found["reasoning"]["count"], 0);
    for absent in ["psnr", "clip_score", "alignment"] {
        assert!(found["reasoning"][absent].is_null(), "{absent}");
    }
    let table = std::fs::read_to_string(path("scores.md")).unwrap();
    let row = "| bench_edited | understanding | 6 | 29.599 | 0.677 | 0.0011 | 0.006 | 24.875 | – |";
    assert!(table.contains(row), "{table}");
    assert!(ended.out.contains("alignment: not measured: the benchmark has no outcomes"), "{}", ended.out);
    assert!(!ended.out.contains("lpips:") && !ended.out.contains("clip_score:"), "{}", ended.out);
}

#[test]
fn pictures_with_known_outcomes_are_aligned_or_not() {
    let place = Benchmark::new();
    place.write_edited("right", |scene| scene.target());
    place.write_edited("nothing", |scene| scene.source());
    place.write_edited("elsewhere", |scene| scene.wrong_place());
    place.write_edited("otherwise", |scene| scene.almost(scene.wrong_class()));
    let names = ["right", "nothing", "elsewhere", "otherwise"];
    let directories = names.map(|name| place.path(name));
    let html = place.path("page.html");
    let mut more = vec!["--html", &html];
    directories.iter().for_each(|directory| more.extend(["--edited", directory]));
    let ended = place.evaluate(&more);
    ended.succeeded();

    let scores = place.scores();
    let of = |name: &str, group: &str, score: &str| scores["deployments"][name][group][score].clone();
    for group in ["understanding", "reasoning", "seen_phrasings", "unseen_phrasings"] {
        let found = names.map(|name| (of(name, group, "alignment"), of(name, group, "strict_alignment")));
        let [right, nothing, elsewhere, otherwise] = found;
        assert_eq!(right, (json!(1.0), json!(1.0)), "{group}");
        assert_eq!((nothing.0, elsewhere.0), (json!(0.0), json!(0.0)), "{group}");
        assert_eq!(otherwise, (json!(1.0), json!(0.0)), "{group}");
    }
    assert_eq!(of("right", "reasoning", "edit_psnr"), "Infinity");
    assert_eq!(of("nothing", "reasoning", "background_psnr"), "Infinity");
    assert_eq!(of("right", "reasoning", "count"), 4);
    assert_eq!(of("right", "unseen_phrasings", "count"), 1);
    assert_eq!(of("right", "understanding", "count"), 10);
    let first = &scores["deployments"]["elsewhere"]["images"][0];
    assert_eq!((&first["scenario"], &first["image"]), (&json!("left-right"), &json!("0001")));
    let nearer = "not nearer to the target than to";
    let reasons = [
        format!("{nearer} the source"),
        format!("{nearer} wrong place 1"),
        "the background is not kept".to_owned(),
    ];
    assert_eq!(first["misalignments"], json!(reasons));
    for name in names {
        assert!(ended.out.contains(name), "{}", ended.out);
    }

    let page = std::fs::read_to_string(&html).unwrap();
    // Source, mask and target of 14 pictures, and four edits of each.
    assert_eq!(page.matches("src=\"data:image/").count(), 14 * (3 + 4));
    assert!(!page.contains("http") && !page.contains("file:"), "the page holds everything it shows");
    assert_eq!(page.matches("class=\"misaligned\"").count(), 2 * 14);
    assert!(page.contains("&lt;left&gt;"), "instructions are text");
}

#[test]
fn every_score_has_its_place_in_json() {
    let place = Benchmark::new();
    place.write_edited("right", |scene| scene.target());
    place.evaluate(&["--edited", &place.path("right"), "--deployment", "mine", "--limit", "1"]).succeeded();
    let scores = place.scores();
    let found = &scores["deployments"]["mine"];
    let groups = ["understanding", "reasoning", "seen_phrasings", "unseen_phrasings"];
    let summaries = SCENARIOS
        .map(|scenario| &found["scenarios"][scenario.name])
        .into_iter()
        .chain(groups.map(|group| &found[group]));
    for summary in summaries {
        let keys: Vec<_> = summary.as_object().unwrap().keys().collect();
        let expected = [
            "alignment",
            "background_psnr",
            "clip_score",
            "count",
            "edit_psnr",
            "failed",
            "ins_align",
            "lpips",
            "mse",
            "psnr",
            "ssim",
            "strict_alignment",
        ];
        assert_eq!(keys, expected);
    }
    assert_eq!(found["understanding"]["count"], 5);
    assert_eq!(found["reasoning"]["count"], 1);
    assert!(found["understanding"]["lpips"].is_null() && found["understanding"]["ins_align"].is_null());
    assert!(scores["absent"]["lpips"].as_str().unwrap().contains("--lpips-weights"));
    assert!(scores["absent"]["clip_score"].as_str().unwrap().contains("--clip"));
    assert_eq!(found["images"].as_array().unwrap().len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_evaluated_over_grpc() {
    let served = Served::configured(&configuration());
    served.ready().await;
    let place = Benchmark::new();
    let kept = place.path("kept");
    let server = ["--server", served.address(), "--steps", "1", "--resolution", "64x64", "--save", &kept];
    place
        .evaluate(&[&server[..], &["-d", "narrow", "-d", "wide", "--concurrency", "3"]].concat())
        .succeeded();
    let over_grpc = place.scores();
    let both = over_grpc["deployments"].as_object().unwrap();
    assert_eq!(both.keys().collect::<Vec<_>>(), ["narrow", "wide"]);
    assert_eq!(over_grpc["seed"], 0);
    assert_ne!(both["narrow"]["understanding"], both["wide"]["understanding"]);

    // What was kept gets the scores that it got.
    let (narrow, wide) = (place.path("kept/narrow"), place.path("kept/wide"));
    place.evaluate(&["--edited", &narrow, "--edited", &wide]).succeeded();
    assert_eq!(place.scores()["deployments"], over_grpc["deployments"]);

    // The same edits once more, on a server of the command's own.
    let own = ["--model", MODEL, "--steps", "1", "--resolution", "64x64"];
    place.evaluate(&own).succeeded();
    assert_eq!(place.scores()["deployments"]["default"], both["wide"]);
}

#[test]
fn an_edit_that_fails_is_listed_and_not_aligned() {
    let place = Benchmark::new();
    let model = ["--model", MODEL, "--set", "limits.max_instruction_chars=40", "--steps", "1"];
    let markdown = place.path("scores.md");
    let more = ["--resolution", "64x64", "--limit", "1", "--markdown", &markdown];
    let ended = place.evaluate(&[&model[..], &more].concat());
    // The only instruction that long is the mirror's.
    ended.failed(1, &["1 of 6 edits failed"]);
    for told in [ended.out, std::fs::read_to_string(&markdown).unwrap()] {
        assert!(told.contains("default: mirror/0001 failed: ") && told.contains("instruction"), "{told}");
    }
    let scores = place.scores();
    let mirror = &scores["deployments"]["default"]["scenarios"]["mirror"];
    assert_eq!((&mirror["count"], &mirror["failed"]), (&json!(1), &json!(1)));
    assert!(mirror["psnr"].is_null());
    assert_eq!(mirror["alignment"], 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_cancels_the_edits_and_writes_nothing() {
    let served = Served::configured(&configuration());
    served.ready().await;
    let client = served.client().await;
    let place = Benchmark::new();
    let (bench, scores) = (place.path("bench"), place.path("scores.json"));
    let arguments = ["evaluate", &bench, "--json", &scores, "--server", served.address(), "--steps", "500"];
    let child = smartedit(arguments).stderr(Stdio::piped()).spawn().unwrap();
    let until = async |running: bool| {
        while (client.deployment("").await.unwrap().running > 0) != running {
            tokio::task::yield_now().await;
        }
    };
    // The time only ends a test that would hang.
    let patient = Duration::from_secs(120);
    tokio::time::timeout(patient, until(true)).await.unwrap();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let ended = child.wait_with_output().unwrap();
    let message = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{message}");
    assert!(message.contains("interrupted"), "{message}");
    tokio::time::timeout(patient, until(false)).await.unwrap();
    assert_eq!(names(place.root()), ["bench"]);
}
