use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use serde_json::Value;

use crate::cli::authoring::case;
use crate::plugins::{Artifact, Compiler, Config, Host};
use crate::world::SystemEntropy;

/// How often a case is asked, for its cost; the first answer counts.
const CALLS: usize = 15;

/// How a plugin did on its cases.
#[derive(Debug)]
pub struct Report {
    /// SHA-256 of the component that was tested.
    pub digest: String,
    /// Its size, in bytes.
    pub size: usize,
    /// Which hooks it has, with a plus between.
    pub kind: String,
    /// Each case.
    pub cases: Vec<CaseReport>,
}

/// One case.
#[derive(Debug)]
pub struct CaseReport {
    /// The file's name.
    pub name: String,
    /// What a call takes, in microseconds: the median of several.
    pub duration_us: u64,
    /// What was expected and what came, where they differ.
    pub difference: Option<(Value, Value)>,
    /// What the plugin logged.
    pub logs: Vec<String>,
    /// Whether the file was written anew.
    pub updated: bool,
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
    let mut config = Config::new(cache.path().to_owned(), Compiler::InProcess);
    let bytes = Bytes::from(fs::read(component)?);
    let size = bytes.len();
    // What a gateway takes is its operator's to say; the size is told with the report.
    config.component_bytes_max = config.component_bytes_max.max(size);
    let host = Host::start(config, &SystemEntropy)?;
    let artifact = host.check(bytes).await.map_err(|it| anyhow!("{} ({})", it.detail, it.code))?;
    let files = case_files(&folder.join("cases"))?;
    let mut cases = Vec::new();
    for path in files {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let report = run(&host, &artifact, &path, update).await;
        cases.push(report.with_context(|| format!("case {name}"))?);
    }
    let kind = artifact.hooks().kind();
    Ok(Report { digest: artifact.digest().to_string(), size, kind, cases })
}

fn case_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder);
    let entries = entries.with_context(|| format!("{} cannot be read", folder.display()))?;
    let mut paths = entries.map(|it| Ok(it?.path())).collect::<Result<Vec<_>>>()?;
    paths.retain(|it| it.extension().is_some_and(|it| it == "json"));
    paths.sort();
    if paths.is_empty() {
        bail!("{} has no case: write one, such as example.json", folder.display());
    }
    Ok(paths)
}

async fn run(
    host: &Host,
    artifact: &Arc<Artifact>,
    path: &Path,
    update: bool,
) -> Result<CaseReport> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut case: Value = serde_json::from_str(&fs::read_to_string(path)?)?;
    let came = case::ask(host, artifact, &case).await?;
    let mut durations = Vec::new();
    for _ in 1..CALLS {
        durations.push(case::ask(host, artifact, &case).await?.duration);
    }
    durations.sort();
    let duration_us = durations[durations.len() / 2].as_micros() as u64;
    let differs = case["expect"] != came.answer;
    let mut difference = differs.then(|| (case["expect"].clone(), came.answer.clone()));
    let updated = update && differs;
    if updated {
        case["expect"] = came.answer;
        fs::write(path, format!("{case:#}\n"))?;
        difference = None;
    }
    Ok(CaseReport { name, duration_us, difference, logs: came.logs, updated })
}
