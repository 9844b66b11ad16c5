//! Python: componentize-py makes a component of the interpreter with the module loaded.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use crate::cli::authoring::{Manifest, tools, world};

const REMEDY: &str =
    "install it: python3 -m venv .venv && .venv/bin/pip install componentize-py==0.25.1";

pub(super) fn build(folder: &Path, manifest: &Manifest) -> Result<PathBuf> {
    let Some(module) = manifest.source().strip_suffix(".py") else {
        bail!("`source` must name a file that ends in .py");
    };
    let path = tools::target(folder, manifest)?;
    let wit = folder.join("target/wit");
    world::write(&wit, &world::interfaces(&manifest.kind)?)?;
    let beside = folder.join(".venv/bin/componentize-py");
    let mut command = match beside.exists() {
        true => Command::new(beside),
        false => Command::new("componentize-py"),
    };
    command.arg("--wit-path").arg(&wit).args(["--world", "plugin", "componentize", module]);
    // With WASI as it is, not stubs of it: what is printed, and the trace of an exception, become
    // lines of the log.
    command.arg("--python-path").arg(folder).arg("--output").arg(&path);
    tools::run(command.current_dir(folder), REMEDY)?;
    Ok(path)
}
