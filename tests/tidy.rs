//! Checks of the code's shape that the compiler does not make.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

const FILE_LINES_MAX: usize = 400;
const LINE_CHARS_MAX: usize = 100;
/// Words that are not ours for the nouns of `ARCHITECTURE.md`.
const WORDS_DENIED: [&str; 6] = ["Message", "Job", "Task", "Webhook", "Destination", "Application"];

#[test]
fn rooms_use_only_what_the_architecture_allows() {
    let rooms = rooms_in_architecture();
    assert_eq!(rooms.keys().cloned().collect::<Vec<_>>(), rooms_on_disk());
    for (room, allowed) in &rooms {
        for path in room_files(room) {
            let text = read(&path);
            for other in rooms.keys().filter(|it| *it != room && !allowed.contains(it)) {
                assert!(!uses(&text, other), "{} uses `{other}`", path.display());
            }
        }
    }
}

#[test]
fn files_stay_small_and_narrow() {
    for path in rust_files(&gateway()) {
        let text = read(&path);
        let code: Vec<_> = text.lines().take_while(|it| *it != "#[cfg(test)]").collect();
        assert!(code.len() <= FILE_LINES_MAX, "{} has {} lines", path.display(), code.len());
        for (number, line) in (1..).zip(text.lines()) {
            let wide = line.chars().count() > LINE_CHARS_MAX;
            // A string that cannot be broken may stick out.
            let broken = wide && !line.contains('"') && !line.trim_start().starts_with("//");
            assert!(!broken, "{}:{number} is too wide", path.display());
        }
    }
}

#[test]
fn nouns_have_one_name() {
    for path in rust_files(&gateway()) {
        for line in read(&path).lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            let place = words.iter().position(|it| matches!(*it, "struct" | "enum" | "trait"));
            let Some(name) = place.and_then(|it| words.get(it + 1)) else { continue };
            if line.trim_start().starts_with("//") {
                continue;
            }
            let denied = WORDS_DENIED.iter().find(|it| name.starts_with(**it));
            assert!(denied.is_none(), "{}: {name}", path.display());
        }
    }
}

#[test]
fn doors_have_no_logic() {
    for path in rust_files(&gateway()).into_iter().filter(|it| it.ends_with("mod.rs")) {
        let logic = read(&path).lines().any(|it| it.contains("fn ") || it.starts_with("impl"));
        assert!(!logic, "{} is more than a door", path.display());
    }
}

#[test]
fn nothing_is_left_undone() {
    for path in rust_files(&gateway()) {
        let text = read(&path);
        for word in ["todo!(", "unimplemented!(", "#[ignore]", "FIXME", "XXX"] {
            assert!(!text.contains(word), "{} has `{word}`", path.display());
        }
    }
}

/// The rows of the table in `ARCHITECTURE.md`: each room and the rooms it may use.
fn rooms_in_architecture() -> BTreeMap<String, Vec<String>> {
    let text = read(&repository().join("ARCHITECTURE.md"));
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split('|');
        let room = cells.next()?.trim().trim_end_matches('`');
        let allowed = cells.next()?.split(',').map(|it| it.trim().to_owned());
        Some((room.to_owned(), allowed.collect()))
    };
    text.lines().filter_map(row).collect()
}

/// A room is a folder, or one file while it fits in one.
fn rooms_on_disk() -> Vec<String> {
    let entries = fs::read_dir(gateway()).expect("a folder");
    let names = entries.map(|it| it.expect("an entry").path().with_extension(""));
    let name = |it: PathBuf| it.file_name().expect("a name").to_string_lossy().into_owned();
    let mut rooms: Vec<_> = names.map(name).filter(|it| it != "lib" && it != "main").collect();
    rooms.sort();
    rooms
}

/// Whether `text` reaches into `room`, by path or inside `use crate::{…}`.
fn uses(text: &str, room: &str) -> bool {
    let groups = text.split("use crate::{").skip(1).filter_map(|it| it.split(';').next());
    let named = |it: &str| {
        it.contains(&format!("{room}::")) || it.split([',', ' ', '}']).any(|it| it == room)
    };
    text.contains(&format!("crate::{room}::"))
        || text.contains(&format!("use crate::{room};"))
        || groups.into_iter().any(named)
}

fn room_files(room: &str) -> Vec<PathBuf> {
    let folder = gateway().join(room);
    match folder.is_dir() {
        true => rust_files(&folder),
        false => vec![folder.with_extension("rs")],
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|it| it.expect("an entry").path());
    let mut files = Vec::new();
    for path in entries {
        match path.is_dir() {
            true => files.extend(rust_files(&path)),
            false => files.push(path),
        }
    }
    files.retain(|it| it.extension().is_some_and(|it| it == "rs"));
    files.sort();
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|it| panic!("{}: {it}", path.display()))
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lie in it").to_owned()
}

fn gateway() -> PathBuf {
    repository().join("gateway/src")
}
