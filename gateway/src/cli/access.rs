//! Who may do what, and who did what: tenants, their keys, and the audit log.

use std::process::ExitCode;

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Map, json};

use crate::cli::client::{Client, Failure, path_of};
use crate::cli::resources::{Page, delete, list, parse};
use crate::cli::sure::Sure;
use crate::cli::{output, values};

type Outcome = Result<ExitCode, Failure>;

#[derive(Debug, Subcommand)]
pub(super) enum Tenants {
    /// All tenants
    List(Page),
    /// One tenant
    Get { tenant: String },
    /// Make, rename or limit a tenant
    #[command(visible_alias = "create")]
    Put {
        tenant: String,
        /// For people
        #[arg(long)]
        name: Option<String>,
        /// What it may use at most: `{"events_per_second": 100, "endpoints_max": 20}`
        #[arg(long, value_name = "JSON")]
        quota: Option<String>,
    },
    /// Delete a tenant with all that is its own
    Delete {
        tenant: String,
        #[command(flatten)]
        sure: Sure,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// All keys of the tenant
    List(Page),
    /// Make a key; it is shown this once
    Create {
        name: String,
        /// What it may do (repeatable)
        #[arg(long = "scope", required = true, value_name = "SCOPE",
              value_parser = ["manage", "produce", "read"])]
        scopes: Vec<String>,
        /// Until then it opens: 2027-01-31T12:00:00Z, or for so long: 90d
        #[arg(long, value_name = "TIME", value_parser = values::future)]
        expires_at: Option<String>,
        /// Requests a second that it may make
        #[arg(long, value_name = "PER_SECOND")]
        rate_limit: Option<f64>,
        /// Requests that it may make at once
        #[arg(long, value_name = "REQUESTS", requires = "rate_limit")]
        burst: Option<u32>,
    },
    /// Make a new text for a key, shown this once; the old one opens along for a while
    Rotate {
        id: String,
        /// How long the old one opens along, up to 168h
        #[arg(long, default_value = "24h")]
        grace: String,
    },
    /// Revoke a key at once
    Revoke {
        id: String,
        #[command(flatten)]
        sure: Sure,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// What was changed in the tenant, newest first; --json has it before and after
    List {
        /// In every tenant, and what belongs to none (operator)
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        page: Page,
    },
}

pub(super) async fn tenants(client: &Client, command: Tenants) -> Outcome {
    match command {
        Tenants::List(page) => {
            let listed = client.get(&format!("/v1/tenants?{}", page.query(&[]))).await?;
            output::list(client.json, &listed, &["id", "name", "created_at"]);
            Ok(ExitCode::SUCCESS)
        }
        Tenants::Get { tenant } => {
            let answer = client.get(&path_of(&["tenants", &tenant])?).await?;
            output::one(client.json, &answer);
            Ok(ExitCode::SUCCESS)
        }
        Tenants::Put { tenant, name, quota } => {
            let mut body = Map::new();
            if let Some(name) = name {
                body.insert("name".to_owned(), name.into());
            }
            if let Some(quota) = quota {
                body.insert("quota".to_owned(), parse(&quota)?);
            }
            let request = client.request(Method::PUT, &path_of(&["tenants", &tenant])?);
            output::one(client.json, &client.json(request.json(&body)).await?);
            Ok(ExitCode::SUCCESS)
        }
        Tenants::Delete { tenant, sure } => {
            let path = path_of(&["tenants", &tenant])?;
            sure.of_all_in(client, "tenant", &tenant)?;
            delete(client, &path).await
        }
    }
}

pub(super) async fn keys(client: &Client, command: Keys) -> Outcome {
    match command {
        Keys::List(page) => {
            let columns = ["id", "name", "scopes", "created_at", "expires_at"];
            list(client, "keys", &page, &[], &columns).await
        }
        Keys::Create { name, scopes, expires_at, rate_limit, burst } => {
            let mut body = json!({ "name": name, "scopes": scopes });
            if let Some(time) = expires_at {
                body["expires_at"] = time.into();
            }
            if let Some(per_second) = rate_limit {
                body["rate_limit"] = json!({ "per_second": per_second });
            }
            if let Some(burst) = burst {
                body["rate_limit"]["burst"] = burst.into();
            }
            output::one(client.json, &client.post(&client.path(&["keys"])?, &body).await?);
            Ok(ExitCode::SUCCESS)
        }
        Keys::Rotate { id, grace } => {
            let path = client.path(&["keys", &id, "rotate"])?;
            output::one(client.json, &client.post(&path, &json!({ "grace": grace })).await?);
            Ok(ExitCode::SUCCESS)
        }
        Keys::Revoke { id, sure } => {
            let path = client.path(&["keys", &id])?;
            sure.of(client, "key", &id)?;
            delete(client, &path).await
        }
    }
}

pub(super) async fn audit(client: &Client, command: Audit) -> Outcome {
    let Audit::List { all, page } = command;
    let path = if all { "/v1/audit-log".to_owned() } else { client.path(&["audit-log"])? };
    let listed = client.get(&format!("{path}?{}", page.query(&[]))).await?;
    let columns = ["at", "by", "operation", "tenant", "subject", "request_id"];
    output::list(client.json, &listed, &columns);
    Ok(ExitCode::SUCCESS)
}
