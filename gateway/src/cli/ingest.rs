use std::process::ExitCode;

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::client::{Client, Failure};
use crate::cli::output;
use crate::cli::resources::plugin_use;
use crate::domain::OnIngestError;

/// The tenant's ingest chain.
#[derive(Debug, Subcommand)]
pub(super) enum Ingest {
    /// Which plugins see each event
    Show,
    /// Set which plugins see each event, in order, in place of those there are
    Set {
        /// NAME[@VERSION][:key=value,…] (repeatable)
        #[arg(required = true, value_name = "PLUGIN")]
        plugins: Vec<String>,
        /// What becomes of an event when one of them fails [default: reject]
        #[arg(long, value_parser = OnIngestError::NAMES.map(|(_, name)| name))]
        on_error: Option<String>,
    },
    /// Take events as they come
    Clear,
}

pub(super) async fn run(client: &Client, command: Ingest) -> Result<ExitCode, Failure> {
    let path = client.path(&["ingest"])?;
    let put = async |plugins: Vec<Value>| {
        let request = client.request(Method::PUT, &path);
        client.json(request.json(&json!({ "plugins": plugins }))).await
    };
    let chain = match command {
        Ingest::Show => client.get(&path).await?,
        Ingest::Set { plugins, on_error } => {
            let mut chain = Vec::with_capacity(plugins.len());
            for text in &plugins {
                let mut plugin = plugin_use(text)?;
                plugin["on_error"] = on_error.clone().into();
                chain.push(plugin);
            }
            put(chain).await?
        }
        Ingest::Clear => put(Vec::new()).await?,
    };
    output::one(client.json, &chain);
    Ok(ExitCode::SUCCESS)
}
