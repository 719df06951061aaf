//! `smartedit compare`, and comparisons by `smartedit serve`.

use smartedit_client::{Code, CompareRequest};

use super::serve::Served;
use super::{Ended, can_run, names, run, text};
use crate::running::{decoded, gradient, png, request};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny-random");

/// A directory with a source picture and a configuration of three deployments of the shipped model.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        std::fs::write(place.0.path().join("in.png"), png(&gradient(48, 40))).unwrap();
        std::fs::write(place.0.path().join("smartedit.toml"), configuration()).unwrap();
        place
    }

    fn path(&self, name: &str) -> String {
        text(&self.0.path().join(name)).to_owned()
    }

    /// Compares these deployments at 168×64 pixels.
    fn compare(&self, deployments: &[&str], more: &[&str]) -> Ended {
        let mut arguments = vec!["compare".to_owned(), self.path("in.png"), "Make it winter".to_owned()];
        let common = ["--steps", "2", "--resolution", "168x64", "--seed", "7"];
        let deployments = deployments.iter().flat_map(|name| ["-d", name]);
        arguments
            .extend(common.into_iter().chain(deployments).chain(more.iter().copied()).map(str::to_owned));
        run(arguments)
    }
}

fn configuration() -> String {
    format!(
        "default_deployment = \"wide\"\n\
         [deployments.wide]\nmodel = {MODEL:?}\n\
         [deployments.again]\nmodel = {MODEL:?}\n\
         [deployments.narrow]\nmodel = {MODEL:?}\nprecision = \"bf16\"\n"
    )
}

#[test]
fn pictures_and_differences_are_drawn_side_by_side() {
    let place = Place::new();
    let (configuration, sheet) = (place.path("smartedit.toml"), place.path("sheet.png"));
    let more = ["--config", &configuration, "--output", &sheet, "--gain", "20"];
    let ended = place.compare(&["wide", "again", "narrow"], &more);
    ended.succeeded();
    for words in
        ["seed 7", "wide", "again", "narrow", "denoiser", "PSNR", "equal", " dB", "SSIM", "1.0000", "MiB"]
    {
        assert!(ended.out.contains(words), "no {words} in {}", ended.out);
    }
    let sheet = decoded(&std::fs::read(sheet).unwrap());
    assert_eq!(sheet.dimensions(), (8 + 4 * 176, 8 + 2 * 88));
    let cell = |column: u32, row: u32| {
        let (left, top) = (8 + column * 176, 8 + row * 88 + 16);
        let picture = image::imageops::crop_imm(&sheet, left, top, 168, 64).to_image();
        picture.pixels().map(|pixel| pixel.0).collect::<Vec<_>>()
    };
    assert_eq!(cell(1, 0), cell(2, 0));
    assert!(cell(2, 1).iter().all(|pixel| *pixel == [0; 3]), "equal pictures differ nowhere");
    assert!(cell(3, 1).iter().any(|pixel| *pixel != [0; 3]), "bf16 differs somewhere");
}

#[test]
fn an_engine_stands_for_the_default_model_on_it() {
    let place = Place::new();
    let ended = place.compare(&["default", "candle"], &["--model", MODEL, "--json"]);
    ended.succeeded();
    let found: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(found["seed"], 7);
    let [first, second] = &found["deployments"].as_array().unwrap()[..] else { panic!("{found}") };
    assert_eq!((&first["deployment"], &second["deployment"]), (&"default".into(), &"candle".into()));
    assert!(first["difference"].is_null());
    assert!(first["seconds"]["stages"]["denoiser"].as_f64().unwrap() > 0.0);
    assert_eq!(second["difference"]["pixels"]["psnr"], "Infinity");
    assert_eq!(second["difference"]["latents"]["step_max"], serde_json::json!([0.0, 0.0]));
    assert_eq!(names(place.0.path()), ["in.png", "smartedit.toml"]);
}

#[test]
fn what_cannot_be_compared_is_named() {
    let place = Place::new();
    let more = ["--model", MODEL];
    place.compare(&["default", "nobody"], &more).failed(2, &["`nobody`"]);
    place.compare(&["default"], &more).failed(1, &["deployments", "1 names"]);
    place.compare(&["candle", "candle"], &more).failed(1, &["deployments[1]", "twice"]);
    place
        .compare(&["candle", "default"], &["--output", "sheet.tiff"])
        .failed(2, &["sheet.tiff", "extension"]);
    place.compare(&["candle", "default"], &["--server", "127.0.0.1:1"]).failed(1, &["127.0.0.1:1"]);
    if !can_run("torch") {
        place.compare(&["candle", "torch"], &more).failed(1, &["`torch`", "--features torch"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_compares_what_it_has_ready() {
    let broken = format!("[deployments.broken]\nmodel = {MODEL:?}\ndevice = \"cuda:7\"\n");
    let served = Served::configured(&(configuration() + &broken));
    served.ready().await;
    let client = served.client().await;
    let compare = |second: &str| {
        let edit = request(2);
        CompareRequest { options: edit.options, ..CompareRequest::new(edit.image, "x", ["wide", second]) }
    };
    // The deployments are loaded at the same time, each on its own thread.
    let settled = async |second: &str| loop {
        match client.compare(compare(second)).await {
            Err(error) if error.code() == Some(Code::Unavailable) => {}
            outcome => break outcome,
        }
    };
    let entries = settled("narrow").await.unwrap();
    let difference = entries[1].outcome.as_ref().unwrap().difference.as_ref().unwrap();
    assert!(difference.pixels.as_ref().unwrap().psnr >= 35.0, "{difference:?}");
    let refused = settled("broken").await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::FailedPrecondition), "{refused}");
    assert!(refused.to_string().contains("`cuda:7`"), "{refused}");
    let unknown = client.compare(compare("nobody")).await.unwrap_err();
    assert_eq!(unknown.code(), Some(Code::NotFound), "{unknown}");
}
