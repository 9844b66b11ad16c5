//! C: clang makes a core module, which becomes a component here. The bindings and the little of a
//! libc that there is are carried along, so the author needs clang and lld and nothing else.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::cli::authoring::{Manifest, tools, world};

const REMEDY: &str = "install clang and lld, for example: apt-get install clang lld";
const LIBC: [(&str, &str); 3] = [
    ("libc.c", include_str!("../../../../plugin-sdk/c/libc.c")),
    ("include/stdlib.h", include_str!("../../../../plugin-sdk/c/include/stdlib.h")),
    ("include/string.h", include_str!("../../../../plugin-sdk/c/include/string.h")),
];

pub(super) fn build(folder: &Path, manifest: &Manifest) -> Result<PathBuf> {
    let path = tools::target(folder, manifest)?;
    let module = path.with_extension("core.wasm");
    let made = folder.join("target/c");
    fs::create_dir_all(made.join("include"))?;
    for (name, text) in LIBC {
        fs::write(made.join(name), text)?;
    }
    for (name, text) in world::c_bindings(&manifest.kind)? {
        let place = if name.ends_with(".h") { made.join("include") } else { made.clone() };
        fs::write(place.join(&name), text)?;
    }
    let mut command = Command::new(std::env::var_os("CLANG").unwrap_or_else(|| "clang".into()));
    command
        .args(["--target=wasm32", "-std=c17", "-O2", "-Wall", "-Wextra", "-nostdlib"])
        .args(["-fno-builtin", "-mbulk-memory", "-Wl,--no-entry", "-Wl,--strip-all"])
        .args(["-I", "target/c/include", "-o"])
        .arg(&module)
        .args([manifest.source(), "target/c/plugin.c", "target/c/libc.c"]);
    tools::run(command.current_dir(folder), REMEDY)?;
    let bytes = fs::read(&module).with_context(|| module.display().to_string())?;
    let component = world::encode(bytes, &world::interfaces(&manifest.kind)?, None);
    let component = component.context("the module does not fit its world")?;
    fs::write(&path, component).with_context(|| path.display().to_string())?;
    Ok(path)
}
