use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// What is done now, on stderr, for a person who watches.
#[derive(Clone)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn start() -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// Tells what is done from now on.
    pub(super) fn tell(&self, what: impl Into<String>) {
        self.0.set_message(what.into());
    }

    pub(super) fn end(&self) {
        self.0.finish_and_clear();
    }
}
