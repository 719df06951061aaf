//! `smartedit convert` and `smartedit inspect`, given files that are damaged or meant to do harm.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use smartedit_tests::golden::{converted, pack};
use tempfile::TempDir;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::{Ended, names, run, text};

/// Where the denoiser's weights are in a diffusers directory.
const WEIGHTS: &str = "diffusion_pytorch_model.bin";

/// A copy of the pack's InstructPix2Pix, to be spoilt.
struct Sources(TempDir);

impl Sources {
    fn new() -> Self {
        let sources = Self(tempfile::tempdir().unwrap());
        copy(&pack().instruct_pix2pix_sources().from, &sources.from());
        sources
    }

    fn from(&self) -> PathBuf {
        self.0.path().join("from")
    }

    /// The denoiser's directory, with its weights taken away.
    fn bare_denoiser(&self) -> PathBuf {
        let directory = self.from().join("unet");
        for name in names(&directory).into_iter().filter(|name| name != "config.json") {
            fs::remove_file(directory.join(name)).unwrap();
        }
        directory
    }

    /// The largest file of the denoiser.
    fn denoiser_weights(&self) -> PathBuf {
        let directory = self.from().join("unet");
        let paths = names(&directory).into_iter().map(|name| directory.join(name));
        paths.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
    }

    fn convert(&self) -> Ended {
        let (from, out) = (self.from(), self.0.path().join("out"));
        run(["convert", "instruct-pix2pix", "--from", text(&from), "--out", text(&out)])
    }

    /// Makes sure that the conversion fails with these words and leaves nothing, finished or not.
    #[track_caller]
    fn are_refused(&self, words: &[&str]) {
        self.convert().failed(1, words);
        assert_eq!(names(self.0.path()), ["from"]);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in names(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        match from.is_dir() {
            true => copy(&from, &to),
            false => drop(fs::copy(&from, &to).unwrap()),
        }
    }
}

/// A PyTorch file of this pickle.
fn torch_file(path: &Path, pickle: &[u8]) {
    let mut archive = ZipWriter::new(fs::File::create(path).unwrap());
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, content) in [("archive/data.pkl", pickle), ("archive/version", b"3\n")] {
        archive.start_file(name, options).unwrap();
        archive.write_all(content).unwrap();
    }
    archive.finish().unwrap();
}

/// A pickle that calls a function with a text when it is loaded by Python.
fn calling(module: &str, function: &str, argument: &str) -> Vec<u8> {
    let mut pickle = format!("\u{2}c{module}\n{function}\nX").into_bytes();
    pickle.insert(0, 0x80);
    pickle.extend(u32::try_from(argument.len()).unwrap().to_le_bytes());
    pickle.extend(argument.as_bytes());
    pickle.extend(b"\x85R.");
    pickle
}

#[test]
fn a_conversion_writes_a_model_that_can_be_inspected() {
    let sources = Sources::new();
    sources.convert().succeeded();
    assert_eq!(names(sources.0.path()), ["from", "out"]);
    let out = sources.0.path().join("out");
    let inspected = run(["inspect", text(&out)]);
    inspected.succeeded();
    for stage in ["text_encoder", "vae_encoder", "denoiser", "vae_decoder"] {
        assert!(inspected.out.contains(stage), "{}", inspected.out);
    }
    sources.convert().failed(1, &[text(&out), "exists"]);
}

#[test]
fn a_pickle_that_calls_a_function_is_refused_and_nothing_is_called() {
    let sources = Sources::new();
    let weights = sources.bare_denoiser().join(WEIGHTS);
    let witness = sources.from().join("was-called");
    for (module, function) in [("os", "system"), ("posix", "system"), ("subprocess", "getoutput")] {
        let command = format!("touch {}", witness.display());
        torch_file(&weights, &calling(module, function, &command));
        let global = format!("`{module}.{function}`");
        sources.are_refused(&[WEIGHTS, &global, "nothing was executed"]);
        run(["inspect", text(&weights)]).failed(1, &[WEIGHTS, &global]);
        assert!(!witness.exists());
    }
}

#[test]
fn a_bare_pickle_is_refused_like_one_in_an_archive() {
    let sources = Sources::new();
    let weights = sources.bare_denoiser().join(WEIGHTS);
    fs::write(&weights, calling("os", "system", "true")).unwrap();
    sources.are_refused(&[WEIGHTS]);
}

#[test]
fn a_truncated_checkpoint_is_named() {
    let sources = Sources::new();
    let weights = sources.denoiser_weights();
    let name = weights.file_name().unwrap().to_str().unwrap().to_owned();
    let whole = fs::read(&weights).unwrap();
    for length in [0, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&weights, &whole[..length]).unwrap();
        sources.are_refused(&[&name]);
    }
}

#[test]
fn missing_sources_are_named() {
    let sources = Sources::new();
    sources.bare_denoiser();
    sources.are_refused(&["unet"]);
    let nowhere = sources.0.path().join("nowhere");
    let out = sources.0.path().join("out");
    run(["convert", "instruct-pix2pix", "--from", text(&nowhere), "--out", text(&out)])
        .failed(1, &[text(&nowhere)]);
    assert_eq!(names(sources.0.path()), ["from"]);
}

#[test]
fn garbage_cannot_be_inspected() {
    let place = tempfile::tempdir().unwrap();
    for (name, content) in [
        ("empty.bin", &b""[..]),
        ("text.bin", b"This is no checkpoint."),
        ("text.safetensors", b"This is no checkpoint."),
        ("huge_header.safetensors", b"\xff\xff\xff\xff\xff\xff\xff\x7f{}"),
    ] {
        let path = place.path().join(name);
        fs::write(&path, content).unwrap();
        run(["inspect", text(&path)]).failed(1, &[name]);
    }
    let nowhere = place.path().join("nowhere");
    run(["inspect", text(&nowhere)]).failed(1, &["nowhere"]);
    run(["inspect", text(place.path())]).failed(1, &[text(place.path())]);
}

#[test]
fn the_packs_models_can_be_inspected() {
    for model in [converted().smartedit(), converted().instruct_pix2pix()] {
        let inspected = run(["inspect", "--json", text(&model)]);
        inspected.succeeded();
        let report: serde_json::Value = serde_json::from_str(&inspected.out).unwrap();
        assert!(report.is_object(), "{report}");
    }
}
