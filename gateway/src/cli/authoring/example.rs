use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cli::authoring::build;
use crate::cli::authoring::sources::write_examples;

/// Makes the component of an example plugin from the sources in this binary, in the user's cache.
///
/// # Errors
/// When the cache cannot be written, or a tool is missing.
pub fn example(name: &str) -> Result<Vec<u8>> {
    let own = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let cache = own.or_else(home).unwrap_or_else(std::env::temp_dir);
    let folder = cache.join("hookgate").join(env!("CARGO_PKG_VERSION"));
    write_examples(&folder).context("the example plugins cannot be written")?;
    let path = build(&folder.join("plugins").join(name))?.path;
    Ok(std::fs::read(path)?)
}
