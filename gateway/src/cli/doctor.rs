use std::process::ExitCode;

use clap::Args;
use reqwest::Method;
use serde_json::json;

use crate::app::doctor::{Finding, State, examine};
use crate::cli::client::{Client, Failure};
use crate::cli::{output, serve};
use crate::domain::Timestamp;

/// Look at what the gateway needs: configuration, port, disk, clock, names, files
///
/// It takes the settings of `serve`, changes nothing, and ends with 1 if something will not work.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// A name to look up
    #[arg(long, value_name = "HOST", default_value = "example.com")]
    resolve: String,
    #[command(flatten)]
    serve: serve::Flags,
}

pub(super) async fn run(client: &Client, flags: Doctor) -> Result<ExitCode, Failure> {
    let findings = match flags.serve.into_config() {
        Ok((config, _)) => {
            let mut findings = vec![Finding {
                name: "configuration",
                state: State::Good,
                found: format!("the store lies in {}", config.data_dir.display()),
                remedy: None,
            }];
            findings.extend(examine(&config, &flags.resolve, served_at(client).await).await);
            findings
        }
        Err(error) => vec![Finding {
            name: "configuration",
            state: State::Bad,
            found: error.to_string(),
            remedy: Some("`hookgate serve --help` lists the settings"),
        }],
    };
    let well = findings.iter().all(|it| it.state != State::Bad);
    let render = |it: &Finding| {
        let (state, found, remedy) = (it.state.name(), &it.found, it.remedy);
        json!({ "name": it.name, "state": state, "found": found, "remedy": remedy })
    };
    let data: Vec<_> = findings.iter().map(render).collect();
    if client.json {
        output::one(true, &json!({ "ok": well, "checks": data }));
    } else {
        for it in &findings {
            output::line(&format!("{:8} {:18} {}", it.state.name(), it.name, it.found));
            if let Some(remedy) = it.remedy {
                output::line(&format!("{:27} → {remedy}", ""));
            }
        }
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the server's clock says, if a server is there.
async fn served_at(client: &Client) -> Option<Timestamp> {
    let answer = client.send(client.request(Method::GET, "/healthz")).await.ok()?;
    let date = httpdate::parse_http_date(answer.headers().get("date")?.to_str().ok()?).ok()?;
    Some(Timestamp(0) + date.duration_since(std::time::UNIX_EPOCH).ok()?)
}
