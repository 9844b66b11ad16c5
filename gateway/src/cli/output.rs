//! Everything that is printed: data to stdout, the rest to stderr.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is where printing is done")]

use std::io::{IsTerminal, Write};

use comfy_table::{Table, presets::NOTHING};
use serde_json::Value;

use crate::cli::client::Failure;

/// Prints a line of data.
pub(super) fn line(text: &str) {
    // Writing to a reader that left is no failure of ours.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints a line for the person who watches.
pub(super) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Tells what went wrong and how to mend it.
pub(super) fn complain(failure: &Failure) {
    eprintln!("error: {failure}");
    for detail in &failure.details {
        eprintln!("  cause: {detail}");
    }
    if let Some(help) = &failure.help {
        eprintln!("  help: {help}");
    }
    if let Some(id) = &failure.request_id {
        eprintln!("  request id: {id}");
    }
}

/// Prints one thing: as JSON, or a line a member.
pub(super) fn one(json: bool, value: &Value) {
    match value.as_object().filter(|_| !json) {
        Some(members) => {
            let width = members.keys().map(String::len).max().unwrap_or_default();
            for (name, value) in members {
                println!("{name:width$}  {}", cell(value));
            }
        }
        None => println!("{value:#}"),
    }
}

/// Prints a list: as JSON, as a table on a terminal, else separated by tabs.
pub(super) fn list(json: bool, page: &Value, columns: &[&str]) {
    if json {
        println!("{page:#}");
        return;
    }
    let rows = page["data"].as_array().cloned().unwrap_or_default();
    if std::io::stdout().is_terminal() {
        let mut table = Table::new();
        table.load_style(NOTHING).set_header(columns.iter().map(|it| it.to_uppercase()));
        for row in &rows {
            table.add_row(columns.iter().map(|it| cell(&row[*it])));
        }
        println!("{}", if rows.is_empty() { "none".to_owned() } else { table.to_string() });
    } else {
        for row in &rows {
            let cells: Vec<_> = columns.iter().map(|it| cell(&row[*it])).collect();
            println!("{}", cells.join("\t"));
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
