//! Everything that is printed: data to stdout, the rest to stderr.

use std::{
    io::{ErrorKind, IsTerminal, Write},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
};

use comfy_table::{Table, presets::NOTHING};
use serde_json::Value;

use crate::cli::client::Failure;

/// Whether a machine reads what went wrong; decided once, by the command line.
static JSON: AtomicBool = AtomicBool::new(false);

/// From now on what goes wrong is told as JSON.
pub(super) fn complain_as_json() {
    JSON.store(true, Ordering::Relaxed);
}

/// Prints a line of data. Once its reader has left, as `head` does, nobody wants the rest: the
/// command ends. Where it cannot be written, as on a full disk, what is there is not whole: the
/// command fails.
pub(super) fn line(text: &str) {
    if let Err(error) = writeln!(std::io::stdout().lock(), "{text}") {
        std::process::exit(i32::from(failed(&error)));
    }
}

/// How a command ends whose data cannot be written.
pub(super) fn unwritten(error: &std::io::Error) -> ExitCode {
    ExitCode::from(failed(error))
}

fn failed(error: &std::io::Error) -> u8 {
    if error.kind() == ErrorKind::BrokenPipe {
        return 0;
    }
    let failure = Failure::other(format!("stdout: {error}"));
    complain(&failure.with_help("what was printed so far is not whole"));
    1
}

/// Prints a line of data for whoever may want it.
pub(super) fn announce(text: &str) {
    // A service goes on when nobody reads.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints a line for the person who watches.
pub(super) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Asks whoever watches; the answer comes behind the question.
pub(super) fn ask(question: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = write!(stderr, "{question}").and_then(|()| stderr.flush());
}

/// Tells what went wrong and how to mend it.
pub(super) fn complain(failure: &Failure) {
    if JSON.load(Ordering::Relaxed) {
        return note(&failure.as_json().to_string());
    }
    note(&format!("error: {failure}"));
    for detail in &failure.details {
        note(&format!("  cause: {detail}"));
    }
    if let Some(help) = &failure.help {
        note(&format!("  help: {help}"));
    }
    if let Some(id) = &failure.request_id {
        note(&format!("  request id: {id}"));
    }
}

/// Prints one thing: as JSON, or a line a member.
pub(super) fn one(json: bool, value: &Value) {
    match value.as_object().filter(|_| !json) {
        Some(members) => {
            let width = members.keys().map(String::len).max().unwrap_or_default();
            for (name, value) in members {
                line(&format!("{name:width$}  {}", cell(value)));
            }
        }
        None => line(&format!("{value:#}")),
    }
}

/// Prints a list: as JSON, as a table on a terminal, else separated by tabs.
pub(super) fn list(json: bool, page: &Value, columns: &[&str]) {
    if json {
        line(&format!("{page:#}"));
        return;
    }
    let rows = page["data"].as_array().cloned().unwrap_or_default();
    if std::io::stdout().is_terminal() {
        let mut table = Table::new();
        table.load_style(NOTHING).set_header(columns.iter().map(|it| it.to_uppercase()));
        for row in &rows {
            table.add_row(columns.iter().map(|it| cell(&row[*it])));
        }
        line(&if rows.is_empty() { "none".to_owned() } else { table.to_string() });
    } else {
        for row in &rows {
            let cells: Vec<_> = columns.iter().map(|it| cell(&row[*it])).collect();
            line(&cells.join("\t"));
        }
    }
    if let Some(cursor) = page["next_cursor"].as_str() {
        note(&format!("there are more: --cursor {cursor}"));
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.replace(['\t', '\n', '\r', '\x1b'], " "),
        Value::Array(items) if items.iter().all(|it| !it.is_object()) => {
            let items: Vec<_> = items.iter().map(cell).collect();
            items.join(",")
        }
        other => other.to_string(),
    }
}
