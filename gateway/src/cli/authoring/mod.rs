//! What plugin authors do on their own machine: make a folder, build it, run its cases.

mod sources;
pub use sources::write_examples;

mod new;
pub use new::{Kind, new};

mod build;
pub use build::{Manifest, build};

mod cases;
pub use cases::{CaseReport, Report, test};
