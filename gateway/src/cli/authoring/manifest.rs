use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::cli::authoring::world;
use crate::domain::PluginName;
use crate::plugins::Keep;

/// How a plugin's name looks, for people.
pub(super) const NAME_FORM: &str = "write a-z or 0-9 first, then a-z, 0-9, - and _";

/// A plugin's `hookgate-plugin.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Under which name it is uploaded.
    pub name: String,
    /// For people: which hooks it has, with a plus between. The gateway looks at the component.
    pub kind: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// What it is written in.
    #[serde(default)]
    pub lang: Lang,
    /// The file to begin with, where the language needs one [default: `plugin.js`, `plugin.py`,
    /// `plugin.c`].
    #[serde(default)]
    pub source: Option<String>,
    /// With `lang = "other"`: the command that makes the component, and its arguments.
    #[serde(default)]
    pub build: Vec<String>,
    /// With `lang = "other"`: where the command leaves the component.
    #[serde(default)]
    pub component: Option<String>,
    /// Whether a call may meet an instance that earlier calls left, or meets a fresh one; it is
    /// written into the component. Without it the gateway keeps those of heavy runtimes.
    #[serde(default)]
    pub instance: Option<Keep>,
}

/// What plugins are written in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Lang {
    /// Rust, with cargo and rustup.
    #[default]
    Rust,
    /// One JavaScript file; needs nothing but this binary.
    #[value(alias = "js")]
    #[serde(alias = "js")]
    Javascript,
    /// Python, with componentize-py.
    #[value(alias = "py")]
    #[serde(alias = "py")]
    Python,
    /// C, with clang.
    C,
    /// Anything that has a command which makes a component.
    #[value(skip)]
    Other,
}

impl Manifest {
    /// Reads the manifest in a plugin's folder.
    ///
    /// # Errors
    /// When there is none, or it has a mistake.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("hookgate-plugin.toml");
        let text = fs::read_to_string(&path).with_context(|| {
            format!("{} is no plugin's folder; `hookgate plugin new` makes one", folder.display())
        })?;
        let manifest: Self = toml::from_str(&text).with_context(|| path.display().to_string())?;
        // It names the component's file too.
        if PluginName::parse(&manifest.name).is_none() {
            bail!("{}: `{}` is no plugin's name: {NAME_FORM}", path.display(), manifest.name);
        }
        world::interfaces(&manifest.kind).with_context(|| path.display().to_string())?;
        let other = manifest.lang == Lang::Other;
        if other != (manifest.component.is_some() && !manifest.build.is_empty()) {
            bail!(
                "{}: `build` and `component` go together with `lang = \"other\"`",
                path.display()
            );
        }
        Ok(manifest)
    }

    /// The file to begin with.
    pub(super) fn source(&self) -> &str {
        let default = match self.lang {
            Lang::Javascript => "plugin.js",
            Lang::Python => "plugin.py",
            Lang::C => "plugin.c",
            Lang::Rust | Lang::Other => "",
        };
        self.source.as_deref().unwrap_or(default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_path() {
        let folder = tempfile::tempdir().unwrap();
        for (name, fits) in [("a-1", true), ("7up", true), ("../../evil", false), ("", false)] {
            let text = format!("name = \"{name}\"\nkind = \"filter\"\n");
            fs::write(folder.path().join("hookgate-plugin.toml"), text).unwrap();
            assert_eq!(Manifest::read(folder.path()).is_ok(), fits, "{name}");
        }
    }

    #[test]
    fn a_kind_is_made_of_hooks() {
        let folder = tempfile::tempdir().unwrap();
        for (kind, fits) in
            [("filter", true), ("filter + sign", true), ("fliter", false), ("", false)]
        {
            let text = format!("name = \"a\"\nkind = \"{kind}\"\n");
            fs::write(folder.path().join("hookgate-plugin.toml"), text).unwrap();
            let read = Manifest::read(folder.path());
            assert_eq!(read.is_ok(), fits, "{kind}: {read:?}");
        }
    }
}
