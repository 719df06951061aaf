//! The progress bar of an edit.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use smartedit_client::{Event, Stage};

/// While a stage runs of which nothing is known but that it runs.
const SPINNER: &str = "{spinner} {prefix}{msg}";

/// While steps are counted.
const STEPS: &str = "{prefix}{msg} {wide_bar} {pos}/{len} {eta}";

/// Shows what an edit does. Hidden where standard error is no terminal.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::new(0).with_message("connecting");
        bar.set_style(style(SPINNER));
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(bar)
    }

    pub(super) fn show(&self, event: &Event) {
        match event {
            Event::Queued(0) => self.0.set_message("next in the queue"),
            Event::Queued(ahead) => self.0.set_message(format!("{ahead} ahead in the queue")),
            Event::StageStarted(Stage::Denoiser) => {
                self.0.set_style(style(STEPS));
                self.0.set_message("denoising");
            }
            Event::StageStarted(stage) => {
                self.0.set_style(style(SPINNER));
                self.0.set_message(stage.to_string().replace('_', " "));
            }
            Event::Step { index, total, .. } => {
                self.0.set_length((*total).into());
                self.0.set_position((*index).into());
            }
            _ => {}
        }
    }

    /// So many of the things that are done one after the other, or at the same time, are done.
    pub(super) fn count(&self, what: &'static str, done: usize, total: usize) {
        self.0.set_style(style(STEPS));
        self.0.set_message(what);
        self.0.set_length(total as u64);
        self.0.set_position(done as u64);
    }

    /// Whose events are shown from now on.
    pub(super) fn deployment(&self, name: &str) {
        self.0.set_prefix(format!("{name}: "));
    }

    pub(super) fn message(&self, message: &'static str) {
        self.0.set_message(message);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
