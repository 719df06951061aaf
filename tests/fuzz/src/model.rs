//! A model directory's `model.json`.

use smartedit_core::model::{ModelConfig, ModelDirectory};
use smartedit_core::stages::{interface, signatures};

use super::with_file;

/// `model.json`, which says how large networks are and which files there must be.
pub fn model(content: &[u8]) {
    with_file("model.json", content, |path| {
        let directory = path.parent().expect("it lies in a directory");
        let _ = ModelDirectory::open(directory);
    });
    // What is asked of networks that fit, whether or not there are files of them.
    let Ok(config) = serde_json::from_slice::<ModelConfig>(content) else { return };
    for stage in config.stages.values().filter(|stage| stage.network.check_sizes().is_ok()) {
        interface(&stage.network);
        signatures(&stage.network);
    }
}
