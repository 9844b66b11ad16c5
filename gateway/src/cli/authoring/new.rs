use std::{fs, path::Path};

use anyhow::{Context, Result, bail};

use crate::cli::authoring::sources::write_sdk;
use crate::domain::PluginName;

/// What a new plugin is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Whether an endpoint gets an event.
    Filter,
    /// What an endpoint gets.
    Transform,
}

/// Makes a folder for a plugin. It carries the SDK along and builds anywhere.
///
/// # Errors
/// When the name is none, the folder is there already, or it cannot be written.
pub fn new(name: &str, kind: Kind, folder: &Path) -> Result<()> {
    if PluginName::parse(name).is_none() || name.as_bytes()[0].is_ascii_digit() {
        bail!("`{name}` is no plugin's name: write a-z first, then a-z, 0-9, - and _");
    }
    if folder.exists() {
        bail!("{} is there already", folder.display());
    }
    let (word, library) = match kind {
        Kind::Filter => ("filter", FILTER),
        Kind::Transform => ("transform", TRANSFORM),
    };
    let case = match kind {
        Kind::Filter => FILTER_CASE,
        Kind::Transform => TRANSFORM_CASE,
    };
    let write = |path: &str, text: &str| -> Result<()> {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().expect("a file lies in a folder"))?;
        let text = text.replace("{{name}}", name).replace("{{kind}}", word);
        fs::write(&path, text).with_context(|| path.display().to_string())
    };
    write("Cargo.toml", MANIFEST)?;
    write("hookgate-plugin.toml", PLUGIN_MANIFEST)?;
    write("src/lib.rs", library)?;
    write("cases/example.json", case)?;
    write("README.md", README)?;
    write(".gitignore", "/target\n")?;
    write_sdk(&folder.join("sdk")).context("the SDK cannot be written")
}

const MANIFEST: &str = r#"[package]
name = "{{name}}"
version = "0.1.0"
edition = "2024"
publish = false

[workspace]

[lib]
crate-type = ["cdylib", "rlib"]

[dependencies]
hookgate-plugin = { path = "sdk/plugin-sdk" }
serde_json = "1"

[profile.release]
opt-level = "s"
lto = true
codegen-units = 1
panic = "abort"
strip = true
"#;

const PLUGIN_MANIFEST: &str = r#"name = "{{name}}"
kind = "{{kind}}"
description = "What it is for"
"#;

const FILTER: &str = r#"//! Delivers only events whose data has `"urgent": true`, or all if `all` is configured.

use hookgate_plugin::{Config, Event, Filtered, Plugin};
use serde_json::Value;

struct Urgent {
    all: bool,
}

impl Plugin for Urgent {
    fn configure(config: &Config) -> Result<Self, String> {
        Ok(Self { all: config.parse("all")?.unwrap_or(false) })
    }

    fn filter(&self, event: &Event) -> Result<Filtered, String> {
        let data: Value = event.json()?;
        match self.all || data["urgent"] == true {
            true => Ok(Filtered::Deliver),
            false => Ok(Filtered::drop("it is not urgent")),
        }
    }
}

hookgate_plugin::export!(Urgent: filter);
"#;

const TRANSFORM: &str = r#"//! Adds the member `source` to the data.

use hookgate_plugin::{Config, Event, Outgoing, Plugin, Transformed};
use serde_json::Value;

struct Source {
    source: String,
}

impl Plugin for Source {
    fn configure(config: &Config) -> Result<Self, String> {
        Ok(Self { source: config.get("source").unwrap_or("hookgate").to_owned() })
    }

    fn transform(&self, event: &Event) -> Result<Transformed, String> {
        let mut data: Value = event.json()?;
        let Some(members) = data.as_object_mut() else { return Ok(Transformed::Unchanged) };
        members.insert("source".to_owned(), self.source.clone().into());
        Ok(Transformed::Replace(Outgoing::json(&data)?))
    }
}

hookgate_plugin::export!(Source: transform);
"#;

const FILTER_CASE: &str = r#"{
  "config": {},
  "event": {"type": "order.created", "data": {"urgent": false}},
  "expect": {"outcome": "drop", "reason": "it is not urgent"}
}
"#;

const TRANSFORM_CASE: &str = r#"{
  "config": {"source": "shop"},
  "event": {"type": "order.created", "data": {"id": 1}},
  "expect": {"outcome": "deliver", "data": {"id": 1, "source": "shop"}}
}
"#;

const README: &str = r"# {{name}}

A {{kind}} plugin for Hookgate. In this folder:

    hookgate plugin build     # compile to a WebAssembly component
    hookgate plugin test      # run cases/*.json in the gateway's sandbox
    hookgate plugin deploy    # upload it as {{name}}

The code is `src/lib.rs`; `sdk/` is the SDK it builds against.
";
