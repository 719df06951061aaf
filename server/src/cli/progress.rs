//! The progress bar of an edit.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use smartedit_client::{Event, Stage};

/// Shows what an edit does. Hidden where standard error is no terminal.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::new(0).with_message("connecting");
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(bar)
    }

    pub(super) fn show(&self, event: &Event) {
        match event {
            Event::Queued(0) => self.0.set_message("next in the queue"),
            Event::Queued(ahead) => self.0.set_message(format!("{ahead} ahead in the queue")),
            Event::StageStarted(Stage::Denoiser) => {
                if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}") {
                    self.0.set_style(style);
                }
                self.0.set_message("denoising");
            }
            Event::StageStarted(stage) => {
                self.0.set_style(ProgressStyle::default_spinner());
                self.0.set_message(stage.to_string().replace('_', " "));
            }
            Event::Step { index, total, .. } => {
                self.0.set_length((*total).into());
                self.0.set_position((*index).into());
            }
            _ => {}
        }
    }

    pub(super) fn message(&self, message: &'static str) {
        self.0.set_message(message);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
