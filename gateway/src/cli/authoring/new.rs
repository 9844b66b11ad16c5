use std::{fs, path::Path};

use anyhow::{Context, Result, bail};

use crate::cli::authoring::Lang;
use crate::cli::authoring::manifest::NAME_FORM;
use crate::cli::authoring::sources::write_sdk;
use crate::cli::authoring::templates::{self, Template};
use crate::domain::PluginName;

/// What a new plugin is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Whether an endpoint gets an event.
    Filter,
    /// What an endpoint gets.
    Transform,
    /// Whether an event is stored, and how.
    Ingest,
    /// What an endpoint's answer means.
    Classify,
    /// How a request is signed.
    Sign,
}

/// Whether there can be such a plugin.
///
/// # Errors
/// When the name is none, or there is no template.
pub fn check(name: &str, lang: Lang, kind: Kind) -> Result<()> {
    if PluginName::parse(name).is_none() {
        bail!("`{name}` is no plugin's name: {NAME_FORM}");
    }
    if lang == Lang::Rust && name.as_bytes()[0].is_ascii_digit() {
        bail!("`{name}` is no crate's name: write a-z first");
    }
    templates::find(lang, kind).map(drop)
}

/// Makes a folder for a plugin. It has all it needs and builds anywhere.
///
/// # Errors
/// When the name is none, the folder is there already, it cannot be written, or there is no
/// template.
pub fn new(name: &str, lang: Lang, kind: Kind, folder: &Path) -> Result<()> {
    check(name, lang, kind)?;
    if folder.exists() {
        bail!("{} is there already", folder.display());
    }
    let Template { word, language, about, files } = templates::find(lang, kind)?;
    let manifest = format!(
        "name = \"{name}\"\nkind = \"{word}\"\nlang = \"{language}\"\n\
         description = \"What it is for\"\n"
    );
    let own = [("hookgate-plugin.toml", manifest.as_str()), (".gitignore", IGNORED)];
    for (path, text) in files.iter().copied().chain(own) {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().expect("a file lies in a folder"))?;
        let text = text.replace("{{name}}", name).replace("{{kind}}", word);
        let text = text.replace("{{language}}", about);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    match lang {
        Lang::Rust => write_sdk(&folder.join("sdk")).context("the SDK cannot be written"),
        _ => Ok(()),
    }
}

const IGNORED: &str = "/target\n/.venv\n__pycache__\n";
