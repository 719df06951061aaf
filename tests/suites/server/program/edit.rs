//! `smartedit edit`.

use std::path::PathBuf;

use smartedit_tests::golden::converted;
use tempfile::TempDir;

use super::{Ended, names, run, text};
use crate::running::{decoded, gradient, png};

/// A directory with a source picture.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        std::fs::write(place.path("in.png"), png(&gradient(48, 40))).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Edits `input` to `output`, both in this place, on the pack's SmartEdit model.
    fn edit(&self, input: &str, output: &str, more: &[&str]) -> Ended {
        let (input, output, model) = (self.path(input), self.path(output), converted().smartedit());
        let mut arguments =
            vec!["edit", text(&input), "Change the left cat to a fox", "--output", text(&output)];
        arguments.extend(["--model", text(&model), "--steps", "2", "--resolution", "64x72", "--seed", "7"]);
        arguments.extend(more);
        run(arguments)
    }
}

#[test]
fn an_edit_without_a_server_writes_the_picture() {
    let place = Place::new();
    for (name, start) in [("out.png", &b"\x89PNG"[..]), ("out.jpg", b"\xff\xd8"), ("out.webp", b"RIFF")] {
        let ended = place.edit("in.png", name, &[]);
        ended.succeeded();
        assert!(ended.out.contains(name) && ended.out.contains("64×72, seed 7"), "{}", ended.out);
        let file = std::fs::read(place.path(name)).unwrap();
        assert!(file.starts_with(start), "{name}");
        assert_eq!(decoded(&file).dimensions(), (64, 72), "{name}");
    }
    assert_eq!(names(place.0.path()), ["in.png", "out.jpg", "out.png", "out.webp"]);
}

#[test]
fn previews_are_written_beside() {
    let place = Place::new();
    let directory = place.path("previews");
    place
        .edit("in.png", "out.png", &["--preview-dir", text(&directory), "--preview-interval", "1"])
        .succeeded();
    assert_eq!(names(&directory), ["step-0001.jpg"]);
    let preview = std::fs::read(directory.join("step-0001.jpg")).unwrap();
    assert_eq!(decoded(&preview).dimensions(), (64, 72));
}

#[test]
fn failures_name_the_culprit_and_write_nothing() {
    let place = Place::new();
    std::fs::write(place.path("text.png"), "This is no picture.").unwrap();
    place.edit("nowhere.png", "out.png", &[]).failed(1, &["nowhere.png", "No such file"]);
    place.edit("in.png", "nowhere/out.png", &[]).failed(1, &["nowhere"]);
    place.edit("text.png", "out.png", &[]).failed(1, &["image", "neither PNG"]);
    place.edit("in.png", "out.png", &["--text-guidance", "nan"]).failed(1, &["options.text_guidance", "NaN"]);
    place.edit("in.png", "out.png", &["--temperature", "-1"]).failed(1, &["options.temperature", "-1"]);
    place.edit("in.png", "out.png", &["--template", "99999"]).failed(1, &["options.template", "99999"]);
    place.edit("in.png", "out.png", &["--deployment", "nobody"]).failed(1, &["`nobody`"]);
    assert_eq!(names(place.0.path()), ["in.png", "text.png"]);
}

#[test]
fn a_model_that_is_not_there_is_wrong_usage() {
    let place = Place::new();
    let (input, output, model) = (place.path("in.png"), place.path("out.png"), place.path("model"));
    let arguments = ["edit", text(&input), "x", "--output", text(&output), "--model", text(&model)];
    run(arguments).failed(2, &[text(&model)]);
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let place = Place::new();
    let (input, output) = (place.path("in.png"), place.path("out.png"));
    let arguments = ["edit", text(&input), "x", "--output", text(&output), "--server", "127.0.0.1:1"];
    run(arguments).failed(1, &["127.0.0.1:1"]);
}
