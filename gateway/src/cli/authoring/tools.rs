//! Running other people's tools.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result, bail};

use crate::cli::authoring::Manifest;

/// Runs a tool to its end. `remedy` is told when it is not there.
pub(super) fn run(command: &mut Command, remedy: &str) -> Result<Output> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output();
    let output = output.with_context(|| format!("`{program}` cannot be run; {remedy}"))?;
    if !output.status.success() {
        let told = [output.stdout, output.stderr].concat();
        bail!("`{program}` failed:\n{}", String::from_utf8_lossy(&told).trim_end());
    }
    Ok(output)
}

/// Where the component of this plugin lies.
pub(super) fn target(folder: &Path, manifest: &Manifest) -> Result<PathBuf> {
    let target = folder.join("target");
    fs::create_dir_all(&target).with_context(|| target.display().to_string())?;
    Ok(target.join(format!("{}.wasm", manifest.name)))
}
