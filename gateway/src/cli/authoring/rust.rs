use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

const TARGET: &str = "wasm32-wasip2";
/// How often it is tried to add it.
const TRIES: u32 = 3;
/// Room that the heap has from the start. Where a plugin has to ask for more, the gateway asks the
/// kernel, and takes it back before the next event: that holds up all threads that run plugins.
const FLAGS: &str = "-C link-arg=--initial-heap=524288";

/// Compiles a crate to a component.
///
/// # Errors
/// When the toolchain is missing or the code does not compile; its own words are in it.
pub(super) fn build(folder: &Path) -> Result<PathBuf> {
    add_target()?;
    let folder = &folder.canonicalize().with_context(|| folder.display().to_string())?;
    let target = folder.join("target");
    let output = Command::new("cargo")
        .args(["build", "--release", "--target", TARGET, "--target-dir"])
        .arg(&target)
        .current_dir(folder)
        .env("RUSTFLAGS", FLAGS)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .context("cargo cannot be run; install Rust from https://rustup.rs")?;
    if !output.status.success() {
        bail!("the plugin does not build:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    let name = package_name(folder)?.replace('-', "_");
    let path = target.join(TARGET).join("release").join(format!("{name}.wasm"));
    if !path.exists() {
        bail!("cargo made no {}; is the crate-type `cdylib`?", path.display());
    }
    Ok(path)
}

/// Adds the target where rustup keeps the toolchain; elsewhere it is there or cargo says so. Of
/// two who add it at once rustup fails for the second, when the first is nearly done.
fn add_target() -> Result<()> {
    let mut why = String::new();
    for _ in 0..TRIES {
        let listed = Command::new("rustup").args(["target", "list", "--installed"]).output();
        let Ok(listed) = listed else { return Ok(()) };
        if String::from_utf8_lossy(&listed.stdout).lines().any(|it| it == TARGET) {
            return Ok(());
        }
        let added = Command::new("rustup").args(["target", "add", TARGET]).output();
        let added = added.context("rustup cannot be run")?;
        if added.status.success() {
            return Ok(());
        }
        why = String::from_utf8_lossy(&added.stderr).into_owned();
    }
    bail!("{TARGET} is missing, and `rustup target add {TARGET}` failed:\n{why}")
}

fn package_name(folder: &Path) -> Result<String> {
    #[derive(Deserialize)]
    struct Manifest {
        package: Package,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
    }
    let text = fs::read_to_string(folder.join("Cargo.toml")).context("there is no Cargo.toml")?;
    Ok(toml::from_str::<Manifest>(&text).context("Cargo.toml")?.package.name)
}
