//! The SDK, the WIT and the example plugins, carried along in the binary, so that a plugin's
//! folder builds anywhere.

use std::{fs, io, path::Path};

/// The contract between gateway and plugin.
pub(super) const WIT: &str = include_str!("../../../../wit/plugin.wit");

type Source = (&'static str, &'static str);

const SDK: [Source; 11] = [
    ("plugin-sdk/src/lib.rs", include_str!("../../../../plugin-sdk/src/lib.rs")),
    ("plugin-sdk/src/bindings.rs", include_str!("../../../../plugin-sdk/src/bindings.rs")),
    ("plugin-sdk/src/config.rs", include_str!("../../../../plugin-sdk/src/config.rs")),
    ("plugin-sdk/src/event.rs", include_str!("../../../../plugin-sdk/src/event.rs")),
    ("plugin-sdk/src/export.rs", include_str!("../../../../plugin-sdk/src/export.rs")),
    ("plugin-sdk/src/keys.rs", include_str!("../../../../plugin-sdk/src/keys.rs")),
    ("plugin-sdk/src/log.rs", include_str!("../../../../plugin-sdk/src/log.rs")),
    ("plugin-sdk/src/plugin.rs", include_str!("../../../../plugin-sdk/src/plugin.rs")),
    ("plugin-sdk/src/testing.rs", include_str!("../../../../plugin-sdk/src/testing.rs")),
    ("wit/plugin.wit", WIT),
    ("plugin-sdk/Cargo.toml", SDK_MANIFEST),
];

/// As the SDK's own manifest, but for a folder outside the workspace.
const SDK_MANIFEST: &str = r#"[package]
name = "hookgate-plugin"
description = "Write Hookgate plugins in Rust"
version = "0.1.0"
edition = "2024"
license = "Apache-2.0"

[dependencies]
serde = { version = "1", features = ["derive"] }
serde_json = "1"
wit-bindgen = { version = "0.61", default-features = false, features = ["macros", "realloc"] }

[target.'cfg(not(target_family = "wasm"))'.dependencies]
hmac = "0.13"
sha1 = "0.11"
sha2 = "0.11"
"#;

const EXAMPLES: [Source; 6] = [
    (
        "plugins/amount-filter/hookgate-plugin.toml",
        include_str!("../../../../plugins/amount-filter/hookgate-plugin.toml"),
    ),
    (
        "plugins/redact/hookgate-plugin.toml",
        include_str!("../../../../plugins/redact/hookgate-plugin.toml"),
    ),
    (
        "plugins/amount-filter/Cargo.toml",
        include_str!("../../../../plugins/amount-filter/Cargo.toml"),
    ),
    (
        "plugins/amount-filter/src/lib.rs",
        include_str!("../../../../plugins/amount-filter/src/lib.rs"),
    ),
    ("plugins/redact/Cargo.toml", include_str!("../../../../plugins/redact/Cargo.toml")),
    ("plugins/redact/src/lib.rs", include_str!("../../../../plugins/redact/src/lib.rs")),
];

/// Writes the SDK and the WIT side by side into `folder`.
pub(super) fn write_sdk(folder: &Path) -> io::Result<()> {
    write(folder, &SDK)
}

/// Writes the example plugins with all they need into `folder`, below `plugins/`.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write_examples(folder: &Path) -> io::Result<()> {
    write(folder, &SDK)?;
    write(folder, &EXAMPLES)
}

/// A file that is as it should be keeps its time, so that nothing is built twice.
fn write(folder: &Path, sources: &[Source]) -> io::Result<()> {
    for (name, text) in sources {
        let path = folder.join(name);
        if fs::read_to_string(&path).is_ok_and(|it| it == *text) {
            continue;
        }
        fs::create_dir_all(path.parent().expect("a file lies in a folder"))?;
        fs::write(path, text)?;
    }
    Ok(())
}
