//! The world of a plugin that is not written with the Rust SDK: only the hooks that it has.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use wit_bindgen_core::Files;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, WorldId};

use crate::cli::authoring::sources::WIT;
use crate::plugins::Hooks;

/// The interfaces of a `kind`, which is hooks with a plus between; all of them take a
/// configuration.
///
/// # Errors
/// When something in it is no hook.
pub(super) fn interfaces(kind: &str) -> Result<Vec<&str>> {
    let hooks: Vec<_> = kind.split('+').map(str::trim).collect();
    if let Some(unknown) = hooks.iter().find(|it| !Hooks::NAMES.contains(it)) {
        bail!("`kind`: there is no hook `{unknown}`; there are {}", Hooks::NAMES.join(", "));
    }
    Ok([&["setup"], hooks.as_slice()].concat())
}

/// Writes the world of these interfaces and what it builds on into `folder`, as tools expect it.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write(folder: &Path, interfaces: &[&str]) -> Result<()> {
    let deps = folder.join("deps/hookgate");
    fs::create_dir_all(&deps).with_context(|| deps.display().to_string())?;
    fs::write(deps.join("plugin.wit"), WIT)?;
    fs::write(folder.join("world.wit"), text(interfaces))?;
    Ok(())
}

/// `plugin.h` and `plugin.c` for a kind: names and texts.
///
/// # Errors
/// When the kind names something that is no hook.
pub(super) fn c_bindings(kind: &str) -> Result<Vec<(String, String)>> {
    let (mut resolve, world) = resolve(&interfaces(kind)?)?;
    // Which world it is is told later, when the module becomes a component.
    let options = wit_bindgen_c::Opts { no_object_file: true, ..wit_bindgen_c::Opts::default() };
    let mut files = Files::default();
    options.build().generate(&mut resolve, world, &mut files)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(files.iter().map(|(name, bytes)| (name.to_owned(), text(bytes))).collect())
}

/// A core module that has the functions of these interfaces, as a component. `adapter` stands in
/// for an interface that the module imports and the component must not.
///
/// # Errors
/// When the module lacks one of the functions.
pub(super) fn encode(
    mut module: Vec<u8>,
    interfaces: &[&str],
    adapter: Option<(&str, &[u8])>,
) -> Result<Vec<u8>> {
    let (resolve, world) = resolve(interfaces)?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    let mut encoder = ComponentEncoder::default();
    encoder.validate(true);
    let mut encoder = encoder.module(&module)?;
    if let Some((name, module)) = adapter {
        encoder = encoder.adapter(name, module)?;
    }
    encoder.encode()
}

fn resolve(interfaces: &[&str]) -> Result<(Resolve, WorldId)> {
    let mut resolve = Resolve::default();
    resolve.push_source("plugin.wit", WIT)?;
    let package = resolve.push_source("world.wit", &text(interfaces))?;
    let world = resolve.select_world(&[package], Some("plugin"))?;
    Ok((resolve, world))
}

fn text(interfaces: &[&str]) -> String {
    let include = |it: &&str| format!("  include hookgate:plugin/{it}-plugin@1.0.0;\n");
    let includes: String = interfaces.iter().map(include).collect();
    format!("package local:plugin;\n\nworld plugin {{\n{includes}}}\n")
}
