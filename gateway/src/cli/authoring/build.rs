use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::cli::authoring::tools::{run, target};
use crate::cli::authoring::{Lang, Manifest, c, python, rust, script};
use crate::plugins::Keep;

/// A component, and what its making has to tell.
#[derive(Debug)]
pub struct Built {
    /// Where the component lies.
    pub path: PathBuf,
    /// Such as what a script wrote to `console` while it was loaded.
    pub notes: Vec<String>,
}

/// Makes a component of a plugin's folder.
///
/// # Errors
/// When a tool is missing, or the code is not right; the tool's own words are in it.
pub fn build(folder: &Path) -> Result<Built> {
    let manifest = Manifest::read(folder)?;
    let folder = &folder.canonicalize().with_context(|| folder.display().to_string())?;
    let mut notes = Vec::new();
    let path = match manifest.lang {
        Lang::Rust => rust::build(folder)?,
        Lang::Javascript => {
            let name = manifest.source();
            let source = fs::read_to_string(folder.join(name))
                .with_context(|| format!("{name} cannot be read"))?;
            let script = script::build(name, &source)?;
            let kind = script.hooks.join("+");
            notes = script.logs.iter().map(|it| format!("console: {it}")).collect();
            if kind != manifest.kind {
                notes.push(format!("{name} has {kind}; the manifest says {}", manifest.kind));
            }
            write(folder, &manifest, &script.component)?
        }
        Lang::Python => python::build(folder, &manifest)?,
        Lang::C => c::build(folder, &manifest)?,
        Lang::Other => other(folder, &manifest)?,
    };
    let path = match manifest.instance {
        Some(keep) => mark(folder, &manifest, &path, keep)?,
        None => path,
    };
    Ok(Built { path, notes })
}

fn other(folder: &Path, manifest: &Manifest) -> Result<PathBuf> {
    let (program, arguments) = manifest.build.split_first().context("`build` is empty")?;
    let mut command = Command::new(program);
    run(command.args(arguments).current_dir(folder), "see the plugin's README")?;
    let path = folder.join(manifest.component.as_deref().unwrap_or_default());
    match path.exists() {
        true => Ok(path),
        false => bail!("`{}` made no {}", manifest.build.join(" "), path.display()),
    }
}

/// Writes into the component what its instances are to be.
fn mark(folder: &Path, manifest: &Manifest, path: &Path, keep: Keep) -> Result<PathBuf> {
    let component = fs::read(path).with_context(|| path.display().to_string())?;
    write(folder, manifest, &keep.mark(&component))
}

fn write(folder: &Path, manifest: &Manifest, component: &[u8]) -> Result<PathBuf> {
    let path = target(folder, manifest)?;
    fs::write(&path, component).with_context(|| path.display().to_string())?;
    Ok(path)
}
