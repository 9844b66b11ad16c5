//! Components built from source.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

/// Whether the target is there. Added once: rustup fails for the second of two who add it at once,
/// and a `hookgate plugin build` of some test may be the other.
static TARGET: LazyLock<bool> = LazyLock::new(|| {
    (0..5).any(|_| {
        let added = Command::new("rustup").args(["target", "add", "wasm32-wasip2"]).output();
        added.expect("rustup is there").status.success()
    })
});

/// The top of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lie in it").to_owned()
}

/// Builds a plugin's folder for `wasm32-wasip2` and reads the component.
pub fn build(folder: &Path) -> Vec<u8> {
    let target = repository().join("target/plugins");
    assert!(*TARGET, "wasm32-wasip2 can be added");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--target", "wasm32-wasip2", "--target-dir"])
        .arg(&target)
        .current_dir(folder)
        .env_remove("RUSTFLAGS")
        .output()
        .expect("cargo is there");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let name = folder.file_name().expect("a folder").to_string_lossy().replace('-', "_");
    let path = target.join(format!("wasm32-wasip2/release/{name}.wasm"));
    std::fs::read(path).expect("the component")
}

/// Builds one of `plugins/`.
pub fn example(name: &str) -> Vec<u8> {
    build(&repository().join("plugins").join(name))
}
