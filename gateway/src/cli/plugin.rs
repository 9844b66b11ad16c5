use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::authoring::{self, Kind, Lang, Manifest};
use crate::cli::client::{Client, Failure};
use crate::cli::plugin_cases::Cases;
use crate::cli::sure::Sure;
use crate::cli::{output, plugin_life, plugin_logs, plugin_run, resources};

/// Write, build, test and deploy plugins
#[derive(Debug, Subcommand)]
pub(super) enum Plugin {
    /// Make a folder for a new plugin
    New {
        /// Its name, and the folder's
        name: PathBuf,
        /// In which language
        #[arg(long, value_enum, default_value = "rust")]
        lang: Lang,
        /// What it is asked; in C there are `filter` and `sign`
        #[arg(long, value_enum, default_value = "filter")]
        kind: Kind,
    },
    /// Compile the plugin in this folder
    Build {
        /// The plugin's folder
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
    /// Run cases/*.json in the gateway's sandbox
    Test {
        /// The plugin's folder
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// Expect from now on what came
        #[arg(long)]
        update: bool,
        /// Run them again whenever a file of the folder changes
        #[arg(long)]
        watch: bool,
    },
    /// Upload the plugin in this folder
    Deploy {
        /// The plugin's folder
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// Keep the version that is active now
        #[arg(long)]
        no_activate: bool,
    },
    /// All plugins of the tenant
    List,
    /// One plugin with its versions
    Get { name: String },
    /// Run a plugin on one event and show what it says and costs; nothing is sent
    Run(plugin_run::Flags),
    #[command(flatten)]
    Life(plugin_life::Life),
    /// What it logged, newest first
    Logs(plugin_logs::Flags),
    /// Delete a plugin that no endpoint uses
    Delete {
        name: String,
        #[command(flatten)]
        sure: Sure,
    },
}

pub(super) async fn run(client: &Client, command: Plugin) -> Result<ExitCode, Failure> {
    match command {
        Plugin::New { name, lang, kind } => new(&name, lang, kind),
        Plugin::Build { folder } => {
            let path = build(&folder)?;
            output::line(&path.display().to_string());
            Ok(ExitCode::SUCCESS)
        }
        Plugin::Test { folder, update, watch } => {
            let authoring = Cases { json: client.json, update };
            if watch { authoring.watch(&folder).await } else { authoring.test(&folder).await }
        }
        Plugin::Deploy { folder, no_activate } => deploy(client, &folder, !no_activate).await,
        Plugin::List => {
            let path = format!("{}?limit=250", client.path(&["plugins"])?);
            let page = client.get(&path).await?;
            output::list(client.json, &page, &["name", "kind", "active_version", "used_by"]);
            Ok(ExitCode::SUCCESS)
        }
        Plugin::Get { name } => {
            let plugin = client.get(&client.path(&["plugins", &name])?).await?;
            show(client.json, plugin);
            Ok(ExitCode::SUCCESS)
        }
        Plugin::Run(flags) => plugin_run::run(client, flags).await,
        Plugin::Life(command) => plugin_life::run(client, command).await,
        Plugin::Logs(flags) => plugin_logs::run(client, flags).await,
        Plugin::Delete { name, sure } => {
            let path = client.path(&["plugins", &name])?;
            sure.of(client, "plugin", &name)?;
            resources::delete(client, &path).await
        }
    }
}

/// A plugin, and each of its versions with how it did.
fn show(json: bool, mut plugin: Value) {
    if json {
        return output::one(true, &plugin);
    }
    let mut versions = plugin["versions"].take();
    for it in versions.as_array_mut().into_iter().flatten() {
        let (stats, breaker) = (it["stats"].take(), it["breaker"].take());
        for name in ["calls", "drops", "rewrites", "errors"] {
            it[name] = stats[name].clone();
        }
        it["p99_us"] = stats["duration_us"]["p99"].clone();
        it["last_error"] = stats["last_error"]["detail"].clone();
        it["breaker"] = breaker["state"].clone();
    }
    if let Some(members) = plugin.as_object_mut() {
        members.retain(|name, _| !matches!(name.as_str(), "versions" | "stats"));
    }
    output::one(false, &plugin);
    let columns = [
        "version",
        "created_at",
        "kind",
        "size",
        "calls",
        "drops",
        "rewrites",
        "errors",
        "p99_us",
        "breaker",
        "last_error",
        "sha256",
    ];
    output::list(false, &json!({ "data": versions }), &columns);
}

fn new(path: &Path, lang: Lang, kind: Kind) -> Result<ExitCode, Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    authoring::check(&name, lang, kind).map_err(|it| Failure::usage(it.to_string()))?;
    authoring::new(&name, lang, kind, path).map_err(told)?;
    output::note(&format!(
        "made {}; next: cd {} && hookgate plugin test",
        path.display(),
        path.display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// Makes the component, and tells what the making has to tell.
pub(super) fn build(folder: &Path) -> Result<PathBuf, Failure> {
    let built = authoring::build(folder).map_err(told)?;
    for note in built.notes {
        output::note(&note);
    }
    Ok(built.path)
}

async fn deploy(client: &Client, folder: &Path, activate: bool) -> Result<ExitCode, Failure> {
    let manifest = Manifest::read(folder).map_err(told)?;
    let component = build(folder)?;
    let bytes = std::fs::read(&component).map_err(|it| Failure::other(it.to_string()))?;
    let size = bytes.len();
    let plugin = upload(client, &manifest.name, bytes, activate).await;
    let plugin = plugin.map_err(|it| match it.is_of_size() {
        true => it.with_help(format!(
            "the component has {size} bytes; the gateway's operator lets it in: \
             component_mib under [plugins], or serve --plugin-component-mib"
        )),
        false => it,
    })?;
    if client.json {
        output::one(true, &plugin);
    } else {
        let (name, version) = (&manifest.name, &plugin["version"]);
        let sha256 = plugin["sha256"].as_str().unwrap_or_default();
        output::line(&format!("{name} version {version}, sha256 {sha256}"));
        let kind = plugin["kind"].as_str().unwrap_or_default();
        let next = match activate {
            true => format!("{}{}", attaching(name, kind), plugin_life::undo(name, version)),
            false => format!(
                "what would differ: hookgate plugin diff {name} --to {version} · \
                 let it run: hookgate plugin activate {name} {version}"
            ),
        };
        output::note(&next);
    }
    Ok(ExitCode::SUCCESS)
}

/// How a plugin with these hooks comes to be asked.
fn attaching(name: &str, kind: &str) -> String {
    let create = format!("attach it: hookgate endpoints create URL --plugin {name}");
    let has = |hook: &str| kind.split('+').any(|it| it == hook);
    match (has("sign"), kind == "ingest") {
        (true, _) => format!(r#"{create} --with '{{"signature":{{"scheme":"plugin"}}}}'"#),
        (_, true) => format!(
            "let it see each event before it is stored, in place of what does so now: \
             hookgate ingest set {name}"
        ),
        _ => create,
    }
}

/// Uploads a component.
pub(super) async fn upload(
    client: &Client,
    name: &str,
    bytes: Vec<u8>,
    activate: bool,
) -> Result<Value, Failure> {
    let path = format!("{}?activate={activate}", client.path(&["plugins", name])?);
    let request = client.request(Method::PUT, &path).header("content-type", "application/wasm");
    client.json(request.body(bytes)).await
}

pub(super) fn told(error: anyhow::Error) -> Failure {
    let mut causes = error.chain().map(ToString::to_string);
    let mut failure = Failure::other(causes.next().unwrap_or_default());
    failure.details = causes.collect();
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_next_goes_by_the_hooks() {
        for (kind, expected) in [
            ("filter", "--plugin it"),
            ("ingest", "hookgate ingest set it"),
            ("filter+ingest", "--plugin it"),
            ("sign", "--plugin it --with '{\"signature\":{\"scheme\":\"plugin\"}}'"),
        ] {
            let told = attaching("it", kind);
            assert!(told.ends_with(expected), "{kind}: {told}");
        }
    }
}
