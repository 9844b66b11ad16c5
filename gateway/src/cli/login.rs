//! Contexts: servers with a key, kept under a name in a file that only its owner reads.

use std::{
    collections::BTreeMap, io::Write, os::unix::fs::OpenOptionsExt, path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cli::client::{Client, Failure, TENANT};
use crate::cli::output;

const USUAL: &str = "default";

/// A server and a key, and the tenant that is meant where none is named.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Context {
    pub(super) server: Option<String>,
    pub(super) key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tenant: Option<String>,
}

/// All that are kept, and which of them is used.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contexts {
    current: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, Context>,
}

/// Keep a server and a key for later calls, and with --tenant whose they are
#[derive(Debug, Args)]
pub(super) struct Login {
    /// What to call it
    #[arg(long, default_value = USUAL)]
    name: String,
    /// Where contexts are kept [default: the user's configuration folder]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Servers that were logged in to.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// All of them, and which is used
    List,
    /// Use another one from now on
    Use {
        /// Its name
        name: String,
    },
    /// Forget one with its key
    Remove {
        /// Its name
        name: String,
    },
}

impl Context {
    /// The one of this name, or the one that is used; nothing if there is none.
    ///
    /// # Errors
    /// When a name is given and none has it.
    pub(super) fn load(name: Option<&str>) -> Result<Self, Failure> {
        let kept = path().and_then(|it| Contexts::read(&it).ok()).unwrap_or_default();
        match name.or(kept.current.as_deref()) {
            Some(named) => match kept.contexts.get(named) {
                Some(context) => Ok(context.clone()),
                None if name.is_none() => Ok(Self::default()),
                None => Err(Failure::usage(format!("there is no context `{named}`"))
                    .with_help("`hookgate context list` tells which there are")),
            },
            None => Ok(Self::default()),
        }
    }
}

impl Contexts {
    fn read(path: &std::path::Path) -> Result<Self, Failure> {
        match std::fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text)
                .map_err(|it| Failure::other(format!("{}: {it}", path.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Failure::other(format!("{}: {error}", path.display()))),
        }
    }

    fn write(&self, path: &std::path::Path) -> Result<(), Failure> {
        let text = toml::to_string(self).expect("it is plain data");
        let failed = |it: std::io::Error| Failure::other(format!("{}: {it}", path.display()));
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
        file.and_then(|mut it| it.write_all(text.as_bytes())).map_err(failed)
    }
}

fn path() -> Option<PathBuf> {
    let own = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let folder = own.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")))?;
    Some(folder.join("hookgate/contexts.toml"))
}

pub(super) async fn run(client: &Client, login: Login) -> Result<ExitCode, Failure> {
    if client.key.is_none() {
        return Err(Failure::usage("there is no key to keep")
            .with_help("hookgate login --server URL --key KEY"));
    }
    match client.get("/api/webhooks").await {
        // A producer's key may publish, and so it may be kept. The operator's is asked about the
        // default tenant, which may be gone.
        Err(failure) if failure.is_of_scope() || failure.is_of_tenant() => {}
        known => drop(known?),
    }
    let tenant = Some(client.tenant.clone()).filter(|it| it != TENANT);
    if tenant.is_some() {
        match client.get(&format!("{}?limit=1", client.path(&["endpoints"])?)).await {
            Err(failure) if failure.is_of_scope() => {}
            known => drop(known?),
        }
    }
    let path = login.file.or_else(path);
    let path = path.ok_or_else(|| Failure::usage("name a file with --file"))?;
    let mut kept = Contexts::read(&path)?;
    let (server, key) = (Some(client.server.clone()), client.key.clone());
    let context = Context { server, key, tenant };
    kept.contexts.insert(login.name.clone(), context);
    kept.current = Some(login.name);
    kept.write(&path)?;
    output::note(&format!("kept in {}", path.display()));
    Ok(ExitCode::SUCCESS)
}

/// Shows and changes what is kept.
pub(super) fn contexts(command: Command, as_json: bool) -> Result<ExitCode, Failure> {
    let path = path().ok_or_else(|| Failure::usage("there is no folder for contexts: set HOME"))?;
    let mut kept = Contexts::read(&path)?;
    let missing = |name: &str| Failure::missing(format!("there is no context `{name}`"));
    match command {
        Command::List => {
            let current = kept.current.as_deref();
            let render = |(name, it): (&String, &Context)| {
                json!({
                    "name": name,
                    "server": it.server,
                    "current": current == Some(name),
                    "tenant": it.tenant.as_deref().unwrap_or(TENANT),
                })
            };
            let data: Vec<_> = kept.contexts.iter().map(render).collect();
            let page = json!({ "data": data, "next_cursor": null });
            output::list(as_json, &page, &["name", "server", "current", "tenant"]);
            return Ok(ExitCode::SUCCESS);
        }
        Command::Use { name } => {
            if !kept.contexts.contains_key(&name) {
                return Err(missing(&name));
            }
            kept.current = Some(name);
        }
        Command::Remove { name } => {
            kept.contexts.remove(&name).ok_or_else(|| missing(&name))?;
            kept.current = kept.current.filter(|it| *it != name);
        }
    }
    kept.write(&path)?;
    Ok(ExitCode::SUCCESS)
}
