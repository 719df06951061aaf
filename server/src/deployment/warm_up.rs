//! An edit that nobody asked for, so that the first one asked for is as fast as the next, and so that a model which
//! loads but cannot edit is noticed before it is served.

use std::sync::Arc;

use image::RgbImage;
use smartedit_core::pipeline::{EditError, EditOptions, EditRequest, ImageTokens, Progress};

use super::NotLoaded;
use crate::work::Editor;

/// Side of the picture where the model has no size of its own, in pixels.
const SIDE: usize = 256;

/// What the picture is to become.
const INSTRUCTION: &str = "Make the sky blue";

/// Makes an edit of one step at the model's own size.
pub(super) fn warm_up(editor: &Arc<dyn Editor>) -> Result<(), NotLoaded> {
    let (width, height) = editor.config().defaults.resolution.unwrap_or((SIDE, SIDE));
    let request = EditRequest {
        image: RgbImage::new(width as u32, height as u32),
        instruction: INSTRUCTION.to_owned(),
        options: EditOptions {
            steps: Some(1),
            image_tokens: ImageTokens::Forced,
            no_cache: true,
            ..EditOptions::default()
        },
    };
    finish(editor, request).map_err(|error| NotLoaded {
        public: "it cannot make an edit; the server's log says why".to_owned(),
        source: anyhow::Error::new(error).context("the edit that warms the model up failed"),
    })
}

fn finish(editor: &Arc<dyn Editor>, request: EditRequest) -> Result<(), EditError> {
    let mut edit = Arc::clone(editor).edit(request)?;
    while !matches!(edit.advance()?, Progress::Finished(_)) {}
    Ok(())
}
