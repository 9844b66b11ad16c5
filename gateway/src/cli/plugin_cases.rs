use std::{path::Path, process::ExitCode};

use serde_json::json;

use crate::cli::authoring::{self, CaseReport};
use crate::cli::client::Failure;
use crate::cli::{output, plugin};

const CASES_FAILED: u8 = 8;

/// How `plugin test` runs cases and shows how they ended.
pub(super) struct Cases {
    pub(super) json: bool,
    pub(super) update: bool,
}

impl Cases {
    /// Builds the plugin, runs its cases, shows how each ended.
    pub(super) async fn test(&self, folder: &Path) -> Result<ExitCode, Failure> {
        let component = plugin::build(folder)?;
        let report = authoring::test(folder, &component, self.update).await;
        let report = report.map_err(plugin::told)?;
        if !self.json {
            let (kind, size, digest) = (&report.kind, report.size, &report.digest);
            output::note(&format!("{kind}, {size} bytes, sha256 {digest}"));
        }
        for case in &report.cases {
            if self.json { show_json(case) } else { show(case) }
        }
        Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::from(CASES_FAILED) })
    }

    /// The same again and again, until the author has enough.
    pub(super) async fn watch(&self, folder: &Path) -> Result<ExitCode, Failure> {
        loop {
            // Looked at before the run, so that what is saved during it counts.
            let changed = authoring::changed(folder);
            tokio::pin!(changed);
            let tested = tokio::select! {
                biased;
                tested = self.test(folder) => tested,
                () = &mut changed => continue,
            };
            if let Err(failure) = tested {
                output::complain(&failure);
            }
            output::note("waiting for a change; Ctrl-C ends it");
            changed.await;
        }
    }
}

fn show_json(case: &CaseReport) {
    let mut shown = json!({
        "case": case.name,
        "passed": case.difference.is_none(),
        "duration_us": case.duration_us,
        "logs": case.logs,
    });
    if let Some((expected, came)) = &case.difference {
        shown["expected"] = expected.clone();
        shown["came"] = came.clone();
    }
    output::line(&shown.to_string());
}

fn show(case: &CaseReport) {
    let CaseReport { name, duration_us, .. } = case;
    let Some((expected, came)) = &case.difference else {
        let word = if case.updated { "updated" } else { "ok     " };
        output::line(&format!("{word} {name} ({duration_us} µs)"));
        return;
    };
    output::line(&format!("failed  {name} ({duration_us} µs)"));
    if expected.is_null() {
        output::line(&format!("        it expects nothing yet; came {came}"));
        output::line("        --update writes that into the case");
        return;
    }
    for difference in authoring::differences(expected, came) {
        output::line(&format!("        {difference}"));
    }
    for line in &case.logs {
        output::line(&format!("        log: {line}"));
    }
}
