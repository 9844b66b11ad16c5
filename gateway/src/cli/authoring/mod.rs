//! What plugin authors do on their own machine: make a folder, build it, run its cases.

mod sources;

mod manifest;
pub use manifest::{Lang, Manifest};

mod new;
pub use new::{Kind, check, new};

mod build;
pub use build::{Built, build};

mod cases;
pub use cases::{CaseReport, Report, test};

mod difference;
pub use difference::differences;

mod example;
pub use example::example;

mod watch;
pub use watch::changed;

mod c;
mod case;
mod python;
mod rust;
mod script;
mod templates;
mod tools;
mod world;
