//! Everything that training may read, in small.

use fastrand::Rng;

use crate::world::{Class, Split, caption, outcome, question, sample_edit, segmentation};

/// How many scenes' texts the corpus holds: enough for every word of every template to occur.
const SCENES: usize = 4000;

/// Texts that together have every word of the training texts, about as often as those have them.
pub fn corpus() -> impl Iterator<Item = String> {
    let phrases = Class::ALL.into_iter().flat_map(|class| class.phrases(Split::Train));
    let outcomes = Class::ALL.into_iter().map(Some).chain([None]).map(outcome);
    let mut rng = Rng::with_seed(0);
    let scenes = (0..SCENES).flat_map(move |index| {
        let edit = sample_edit(&mut rng, None, Split::Train, Split::Train);
        let scene = if index % 2 == 0 { edit.scene.clone() } else { edit.target() };
        let (question, answer) = question(&mut rng, &scene);
        let caption = caption(&mut rng, &scene);
        let marking = segmentation(&mut rng, &scene).map(|marking| marking.instruction);
        [edit.instruction, question, answer, caption].into_iter().chain(marking)
    });
    phrases.map(|&phrase| phrase.to_owned()).chain(outcomes).chain(scenes)
}
