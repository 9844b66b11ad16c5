use std::{fs, path::Path, time::Duration};

/// How often files are looked at: a person saves and looks up.
const PERIOD: Duration = Duration::from_millis(300);
/// What tools make, and what is not the author's.
const SKIPPED: [&str; 4] = ["target", "node_modules", "sdk", "__pycache__"];

/// Waits until a file of a plugin's folder is other than it was when this was called. Files and
/// folders with a dot in front do not count.
pub fn changed(folder: &Path) -> impl Future<Output = ()> {
    let before = times(folder);
    async move {
        while times(folder) == before {
            tokio::time::sleep(PERIOD).await;
        }
    }
}

/// A file that cannot be read is as if it was not there: it may be about to be replaced.
fn times(folder: &Path) -> Vec<(std::path::PathBuf, Option<std::time::SystemTime>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || SKIPPED.contains(&name.as_str()) {
            continue;
        }
        match entry.path() {
            path if path.is_dir() => found.extend(times(&path)),
            path => {
                let time = entry.metadata().and_then(|it| it.modified()).ok();
                found.push((path, time));
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_saved_file_is_noticed_and_what_tools_make_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::create_dir_all(path.join("target")).unwrap();
        fs::write(path.join("plugin.js"), "a").unwrap();
        let waiting = async {
            changed(path).await;
            fs::read_to_string(path.join("plugin.js")).unwrap()
        };
        let saving = async {
            fs::write(path.join("target/plugin.wasm"), "").unwrap();
            tokio::time::sleep(PERIOD * 3).await;
            fs::write(path.join("plugin.js"), "b").unwrap();
        };
        let (seen, ()) = tokio::join!(waiting, saving);
        assert_eq!(seen, "b");
    }
}
