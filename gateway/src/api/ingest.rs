//! A tenant's ingest chain, as it is set: plugins that see each event once, before it is stored.

use axum::{body::Body, extract::State};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::api::caller::{Access, Need};
use crate::api::endpoint_body::{name_of, one_of};
use crate::api::fields::Fields;
use crate::api::gateway::Gateway;
use crate::api::page::json_response;
use crate::api::problem::{FieldError, Problem, Result};
use crate::api::route::{Route, get, put};
use crate::api::{body, plugin_follow};
use crate::domain::{IngestUse, OnIngestError, PluginName, Scope};
use crate::plugins::Hooks;

const PLUGINS_MAX: usize = 8;

const INGEST: &str = "/v1/tenants/{tenant}/ingest";

pub(super) fn routes() -> Vec<Route> {
    vec![
        get(INGEST, Need::Scope(Scope::Read), read, ("getIngest", "The tenant's ingest chain."))
            .gives(200, "Ingest"),
        put(
            INGEST,
            Need::Scope(Scope::Manage),
            put_chain,
            ("putIngest", "Sets the plugins that see each event before it is stored."),
        )
        .takes("IngestPut")
        .gives(200, "Ingest")
        .refuses(404, "plugin_not_found")
        .refuses(422, "plugin_no_hook")
        .refuses(422, "plugin_config_refused"),
    ]
}

async fn read(access: Access) -> Result {
    Ok(json_response(StatusCode::OK, &render(&access.shard.ingest(&access.slug))))
}

async fn put_chain(
    State(gateway): State<Gateway>,
    access: Access,
    headers: HeaderMap,
    body: Body,
) -> Result {
    let mut fields = body::object(&headers, body, gateway.limits.body_bytes_max).await?;
    let values = fields.array("plugins");
    let values = fields.need("plugins", values).unwrap_or_default();
    if values.len() > PLUGINS_MAX {
        fields.refuse("plugins", format!("at most {PLUGINS_MAX}"));
    }
    let mut chain = Vec::new();
    for (place, value) in values.into_iter().enumerate() {
        match read_use(&access, value, &format!("/plugins/{place}")) {
            Ok(it) => chain.extend(it),
            Err(errors) => fields.refuse_all(errors),
        }
    }
    fields.finish().map_err(Problem::invalid_fields)?;
    let uses = chain.iter().map(|it| (&it.plugin, it.version, &it.config));
    let suits = ((|it| it.ingest) as fn(Hooks) -> bool, "`ingest`");
    plugin_follow::check_chain(&gateway, &access, uses, suits).await?;
    let stored = access.shard.put_ingest(&access.slug, &chain).await;
    stored.map_err(|it| Problem::named(it, "plugin_not_found"))?;
    // What rested may do better as it is configured now.
    for it in &chain {
        gateway.plugins.breakers().forget(access.slug.as_str(), Some(&it.plugin));
    }
    Ok(json_response(StatusCode::OK, &render(&chain)))
}

fn read_use(
    access: &Access,
    value: Value,
    base: &str,
) -> Result<Option<IngestUse>, Vec<FieldError>> {
    let mut fields = Fields::of(value, base)?;
    let name = fields.parsed("plugin", "a plugin's name", PluginName::parse);
    let name = fields.need("plugin", name);
    let version = fields.whole("version", 1, u32::MAX);
    let config = fields.strings("config").unwrap_or_default();
    let on_error = one_of(&mut fields, "on_error", &OnIngestError::NAMES);
    if let Some(name) = &name {
        match access.shard.plugin(&access.slug, name) {
            None => {
                fields.refuse("plugin", format!("there is no plugin `{name}`; upload it first"));
            }
            Some(plugin) if plugin.version(version).is_none() => {
                fields.refuse("version", format!("`{name}` has no such version"));
            }
            Some(_) => {}
        }
    }
    fields.finish()?;
    Ok(name.map(|plugin| IngestUse { plugin, version, config, on_error }))
}

/// The chain as it is set.
pub(super) fn render(chain: &[IngestUse]) -> Value {
    let one = |it: &IngestUse| {
        json!({
            "plugin": it.plugin.as_str(),
            "version": it.version,
            "config": it.config,
            "on_error": name_of(&OnIngestError::NAMES, it.on_error),
        })
    };
    json!({ "plugins": chain.iter().map(one).collect::<Vec<_>>() })
}
