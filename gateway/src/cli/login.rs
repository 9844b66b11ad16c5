use std::{io::Write, os::unix::fs::OpenOptionsExt, path::PathBuf, process::ExitCode};

use serde::{Deserialize, Serialize};

use crate::cli::client::{Client, Failure};
use crate::cli::output;

/// A server and a key that were kept.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Context {
    pub(super) server: Option<String>,
    pub(super) key: Option<String>,
}

impl Context {
    /// What was kept; nothing if there is nothing, or it cannot be read.
    pub(super) fn load() -> Self {
        let text = path().and_then(|it| std::fs::read_to_string(it).ok());
        text.and_then(|it| toml::from_str(&it).ok()).unwrap_or_default()
    }
}

fn path() -> Option<PathBuf> {
    let own = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let folder = own.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")))?;
    Some(folder.join("hookgate/context.toml"))
}

pub(super) async fn run(client: &Client, file: Option<PathBuf>) -> Result<ExitCode, Failure> {
    if client.key.is_none() {
        return Err(Failure::usage("there is no key to keep")
            .with_help("hookgate login --server URL --key KEY"));
    }
    client.get("/api/webhooks").await?;
    let path = file.or_else(path).ok_or_else(|| Failure::usage("name a file with --file"))?;
    let context = Context { server: Some(client.server.clone()), key: client.key.clone() };
    let text = toml::to_string(&context).expect("it is plain data");
    let failed = |it: std::io::Error| Failure::other(format!("{}: {it}", path.display()));
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let options =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
    options.and_then(|mut it| it.write_all(text.as_bytes())).map_err(failed)?;
    output::note(&format!("kept in {}", path.display()));
    Ok(ExitCode::SUCCESS)
}
