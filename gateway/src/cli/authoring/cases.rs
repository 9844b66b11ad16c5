use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::plugins::{Artifact, Call, Compiler, Config, EventIn, Host, Outgoing, Verdict};
use crate::world::SystemEntropy;

/// How a plugin did on its cases.
#[derive(Debug)]
pub struct Report {
    /// SHA-256 of the component that was tested.
    pub digest: String,
    /// Each case.
    pub cases: Vec<CaseReport>,
}

/// One case.
#[derive(Debug)]
pub struct CaseReport {
    /// The file's name.
    pub name: String,
    /// How long the call took, in microseconds.
    pub duration_us: u64,
    /// What was expected and what came, where they differ.
    pub difference: Option<(Value, Value)>,
}

impl Report {
    /// Whether all cases came out as expected.
    pub fn passed(&self) -> bool {
        self.cases.iter().all(|it| it.difference.is_none())
    }
}

/// Runs `cases/*.json` of a plugin's folder on a component, in the gateway's sandbox with its
/// limits. `update`: what comes becomes what is expected.
///
/// # Errors
/// When the component is not taken, or a case cannot be read.
pub async fn test(folder: &Path, component: &Path, update: bool) -> Result<Report> {
    let cache = tempfile::tempdir()?;
    let config = Config::new(cache.path().to_owned(), Compiler::InProcess);
    let host = Host::start(config, &SystemEntropy)?;
    let bytes = Bytes::from(fs::read(component)?);
    let artifact = host.check(bytes).await.map_err(|it| anyhow!("{} ({})", it.detail, it.code))?;
    let mut cases = Vec::new();
    for path in case_files(&folder.join("cases"))? {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path)?;
        let mut case: Value = serde_json::from_str(&text).with_context(|| name.clone())?;
        let (came, duration_us) =
            run(&host, &artifact, &case).await.with_context(|| name.clone())?;
        let difference = (case["expect"] != came).then(|| (case["expect"].clone(), came.clone()));
        if update && difference.is_some() {
            case["expect"] = came;
            fs::write(&path, format!("{case:#}\n"))?;
        }
        let difference = difference.filter(|_| !update);
        cases.push(CaseReport { name, duration_us, difference });
    }
    Ok(Report { digest: artifact.digest().to_string(), cases })
}

fn case_files(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("{} is missing", folder.display()))?;
    let mut paths = entries.map(|it| Ok(it?.path())).collect::<Result<Vec<_>>>()?;
    paths.retain(|it| it.extension().is_some_and(|it| it == "json"));
    paths.sort();
    Ok(paths)
}

async fn run(host: &Host, artifact: &Arc<Artifact>, case: &Value) -> Result<(Value, u64)> {
    let texts = |value: &Value| -> Result<BTreeMap<String, String>> {
        let members = value.as_object().cloned().unwrap_or_else(Map::new);
        let text = |(key, value): (String, Value)| {
            let value = value.as_str().ok_or_else(|| anyhow!("`{key}` must be a string"))?;
            Ok((key, value.to_owned()))
        };
        members.into_iter().map(text).collect()
    };
    let event = &case["event"];
    let data = &event["data"];
    let event = EventIn {
        id: event["id"].as_str().unwrap_or("evt_case").to_owned(),
        event_type: event["type"].as_str().context("the event has no `type`")?.to_owned(),
        timestamp_ms: 0,
        content_type: "application/json".to_owned(),
        metadata: texts(&event["metadata"])?.into_iter().collect(),
        ordering_key: event["ordering_key"].as_str().map(str::to_owned),
        payload: Bytes::from(data.to_string()),
    };
    let config = texts(&case["config"])?.into_iter().collect();
    let call = Call {
        tenant: "author".into(),
        artifact: artifact.clone(),
        config,
        question: event,
        limits: None,
    };
    let called = host.call(call).await;
    // A case names only what it cares for.
    let wanted = |name: &str| case["expect"].get(name).is_some();
    let came = match called.verdict {
        Ok(Verdict::Drop(reason)) => json!({ "outcome": "drop", "reason": reason }),
        Ok(Verdict::Deliver) if wanted("data") => json!({ "outcome": "deliver", "data": data }),
        Ok(Verdict::Deliver) => json!({ "outcome": "deliver" }),
        Ok(Verdict::Replace(out)) => {
            let mut came = render(out, wanted("headers"));
            came["outcome"] = "deliver".into();
            came
        }
        Ok(Verdict::Split(parts)) => {
            let parts = parts.into_iter().map(|it| render(it, wanted("headers")));
            json!({ "outcome": "split", "parts": parts.collect::<Vec<_>>() })
        }
        Err(fault) => json!({ "outcome": "error", "error": fault.detail }),
    };
    Ok((came, called.duration.as_micros() as u64))
}

fn render(out: Outgoing, with_headers: bool) -> Value {
    let text = || Value::String(String::from_utf8_lossy(&out.payload).into_owned());
    let mut came = json!({
        "data": serde_json::from_slice(&out.payload).unwrap_or_else(|_| text()),
    });
    if with_headers || !out.headers.is_empty() {
        let headers = out.headers.into_iter().map(|(name, it)| (name, Value::String(it)));
        came["headers"] = headers.collect();
    }
    came
}
