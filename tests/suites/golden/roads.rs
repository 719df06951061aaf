//! Both roads from the language model to the UNet matter: cross-attention says what shall be drawn, the interaction's
//! feature says where.

#![allow(clippy::print_stdout, reason = "what was measured is shown")]

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use image::RgbImage;
use smartedit_core::pipeline::{EditOptions, EditRequest, Model};
use smartedit_core::stage::{Session, Stage, StageError, StageInfo, StageKind};
use smartedit_core::tensor::Tensors;
use smartedit_tests::engines::Row;

use crate::replay;

smartedit_tests::matrix!(row: the_class_comes_by_cross_attention_and_the_place_by_the_feature);

/// What the connector made last, and what is put in its place.
#[derive(Default)]
struct Switch {
    made: Tensors,
    instead: Tensors,
}

/// A connector whose outputs can be exchanged.
struct Switched {
    stage: Arc<dyn Stage>,
    switch: Arc<Mutex<Switch>>,
}

struct SwitchedSession {
    session: Box<dyn Session>,
    switch: Arc<Mutex<Switch>>,
}

impl Stage for Switched {
    fn info(&self) -> &StageInfo {
        self.stage.info()
    }

    fn session(&self) -> Box<dyn Session> {
        Box::new(SwitchedSession { session: self.stage.session(), switch: self.switch.clone() })
    }
}

impl Session for SwitchedSession {
    fn run(&mut self, inputs: &Tensors) -> Result<Tensors, StageError> {
        let made = self.session.run(inputs)?;
        let mut switch = self.switch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut given = made.clone();
        for name in ["prompt_embeds", "image_feature"] {
            if let Some(tensor) = switch.instead.get(name) {
                given.insert(name, tensor.clone());
            }
        }
        switch.made = made;
        Ok(given)
    }
}

/// Mean squared difference over the values in which two other pictures differ.
fn distance(picture: &RgbImage, other: &RgbImage, [a, b]: [&RgbImage; 2]) -> f64 {
    let values = picture.as_raw().iter().zip(other.as_raw()).zip(a.as_raw().iter().zip(b.as_raw()));
    let squares: Vec<f64> = values
        .filter(|(_, (a, b))| a.abs_diff(**b) > 8)
        .map(|((x, y), _)| f64::from(x.abs_diff(*y)).powi(2))
        .collect();
    assert!(squares.len() > 100, "the two edits are the same");
    squares.iter().sum::<f64>() / squares.len() as f64
}

fn the_class_comes_by_cross_attention_and_the_place_by_the_feature(row: &Row) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let switch = Arc::new(Mutex::new(Switch::default()));
    let model = Model::load(&root.join("models/emoji"), |config, weights| {
        let stage = row.backend.load(config, weights, &row.options)?;
        Ok(match config.kind() {
            StageKind::Connector => Arc::new(Switched { stage, switch: switch.clone() }),
            _ => stage,
        })
    });
    let model = Arc::new(model.unwrap_or_else(|e| panic!("{}: {e}", row.name)));
    let image = replay::example();
    let edit = |instruction: &str, instead: Tensors| {
        switch.lock().unwrap_or_else(PoisonError::into_inner).instead = instead;
        let options = EditOptions { seed: 3, ..EditOptions::default() };
        let request = EditRequest { image: image.clone(), instruction: instruction.to_owned(), options };
        let picture = replay::run(&model, request).0.image;
        (picture, std::mem::take(&mut switch.lock().unwrap_or_else(PoisonError::into_inner).made))
    };
    let only = |tensors: &Tensors, name: &str| {
        Tensors::new().with(name, tensors.get(name).expect("the connector makes it").clone())
    };

    let (fox, _) = edit("Change the left animal to a fox", Tensors::new());
    for (other, name) in [
        ("Change the left animal to a lion", "prompt_embeds"),
        ("Change the right animal to a fox", "image_feature"),
    ] {
        let (wanted, made) = edit(other, Tensors::new());
        let (switched, _) = edit("Change the left animal to a fox", only(&made, name));
        let near = distance(&switched, &wanted, [&fox, &wanted]);
        let far = distance(&switched, &fox, [&fox, &wanted]);
        println!(
            "{}: with the {name} of {other:?}: {near:.0} from that edit, {far:.0} from its own",
            row.name
        );
        assert!(near < far / 4.0, "{}: {name} does not change the picture as {other:?} does", row.name);
    }
}
