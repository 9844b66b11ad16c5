//! A version on trial: it meets a share of the events, is compared with the active version, and
//! is promoted or taken back.

use axum::{
    body::Body,
    extract::{Path, State},
    response::Response,
};
use http::{HeaderMap, StatusCode};

use crate::api::caller::{Access, Need};
use crate::api::fields::Fields;
use crate::api::gateway::Gateway;
use crate::api::page::{Query, json_response};
use crate::api::problem::{Problem, Result};
use crate::api::route::{Route, delete, get, post};
use crate::api::{body, invoke, plugin_follow, plugin_wire};
use crate::domain::{Canary, Plugin, Scope, Share};
use crate::storage::Refused;

const CANARY: &str = "/v1/tenants/{tenant}/plugins/{name}/canary";

pub(super) fn routes() -> Vec<Route> {
    let (read_, manage) = (Need::Scope(Scope::Read), Need::Scope(Scope::Manage));
    vec![
        get(
            CANARY,
            read_,
            read,
            ("getCanary", "The trial of a version, with both sides' figures."),
        )
        .gives(200, "Trial")
        .refuses(404, "canary_not_found"),
        post(CANARY, manage, start, ("startCanary", "Puts a version on trial."))
            .query(&["force"])
            .takes("NewTrial")
            .gives(201, "Trial")
            .refuses(404, "plugin_version_not_found")
            .refuses(409, "plugin_version_active")
            .refuses(422, "plugin_no_hook")
            .refuses(422, "plugin_config_refused"),
        delete(CANARY, manage, stop, ("stopCanary", "Takes the version on trial back."))
            .gives(200, "Plugin")
            .refuses(404, "canary_not_found"),
        post(
            "/v1/tenants/{tenant}/plugins/{name}/canary/promote",
            manage,
            promote,
            ("promoteCanary", "Makes the version on trial the active one."),
        )
        .query(&["force"])
        .gives(200, "Plugin")
        .refuses(404, "canary_not_found")
        .refuses(422, "plugin_no_hook")
        .refuses(422, "plugin_config_refused"),
    ]
}

async fn start(
    State(gateway): State<Gateway>,
    access: Access,
    Path((_, name)): Path<(String, String)>,
    headers: HeaderMap,
    query: Query,
    body: Body,
) -> Result {
    let force = plugin_follow::flag(&query, "force", false)?;
    let plugin = access.plugin(&name)?;
    let mut fields = body::object(&headers, body, gateway.limits.body_bytes_max).await?;
    let version = fields.whole("version", 1, u32::MAX);
    let version = fields.need("version", version);
    let share = read_share(&mut fields, "share");
    let share = fields.need("share", share);
    let compare = fields.boolean("compare").unwrap_or(false);
    let abort_on_error_rate = read_share(&mut fields, "abort_on_error_rate");
    fields.finish().map_err(Problem::invalid_fields)?;
    let (Some(version), Some(share)) = (version, share) else {
        return Err(Problem::invalid_fields(Vec::new()));
    };
    let artifact = invoke::artifact(&gateway, &access, &plugin, Some(version)).await?;
    plugin_follow::check(&gateway, &access, &plugin.name, (&artifact, force)).await?;
    let started_at = gateway.clock.now();
    let canary = Canary { version, share, compare, abort_on_error_rate, started_at };
    let started = access.shard.start_canary(&access.slug, &plugin.name, canary).await;
    let plugin = started.map_err(|it| match it {
        Refused::Invalid(detail) => Problem::conflict("plugin_version_active", detail),
        other => Problem::named(other, "plugin_version_not_found"),
    })?;
    Ok(answer(&gateway, &access, &plugin, StatusCode::CREATED))
}

fn read_share(fields: &mut Fields, name: &str) -> Option<Share> {
    fields.number(name, 0.0, 1.0).and_then(Share::of)
}

fn running(plugin: &Plugin) -> Result<&Canary> {
    plugin.canary.as_ref().ok_or_else(|| Problem::not_found("canary_not_found"))
}

/// The trial as it goes, or as it went until now.
fn answer(gateway: &Gateway, access: &Access, plugin: &Plugin, status: StatusCode) -> Response {
    let canary = plugin.canary.as_ref().expect("the caller has looked");
    let trial = gateway.plugins.diary().trial(&access.slug.shared(), &plugin.name, canary);
    json_response(status, &plugin_wire::trial(plugin, canary, &trial))
}

async fn read(
    State(gateway): State<Gateway>,
    access: Access,
    Path((_, name)): Path<(String, String)>,
) -> Result {
    let plugin = access.plugin(&name)?;
    running(&plugin)?;
    Ok(answer(&gateway, &access, &plugin, StatusCode::OK))
}

async fn promote(
    State(gateway): State<Gateway>,
    access: Access,
    Path((_, name)): Path<(String, String)>,
    query: Query,
) -> Result {
    let force = plugin_follow::flag(&query, "force", false)?;
    let plugin = access.plugin(&name)?;
    // Who follows it may have come, or changed, since the trial began.
    let version = Some(running(&plugin)?.version);
    let artifact = invoke::artifact(&gateway, &access, &plugin, version).await?;
    plugin_follow::check(&gateway, &access, &plugin.name, (&artifact, force)).await?;
    end(&gateway, &access, &name, true).await
}

async fn stop(
    State(gateway): State<Gateway>,
    access: Access,
    Path((_, name)): Path<(String, String)>,
) -> Result {
    end(&gateway, &access, &name, false).await
}

async fn end(gateway: &Gateway, access: &Access, name: &str, promote: bool) -> Result {
    let plugin = access.plugin(name)?;
    let version = running(&plugin)?.version;
    let ended = access.shard.end_canary(&access.slug, &plugin.name, version, promote).await;
    let plugin = ended.map_err(|it| Problem::named(it, "canary_not_found"))?;
    // What was deferred because of the version that is left may go on.
    gateway.plugins.breakers().forget(access.slug.as_str(), Some(&plugin.name));
    Ok(json_response(StatusCode::OK, &plugin_wire::plugin(gateway, access, &plugin)))
}
