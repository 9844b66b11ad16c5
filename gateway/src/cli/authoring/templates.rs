//! What new folders begin with. In each language a kind of plugin does the same and has the same
//! cases.

use anyhow::{Result, bail};

use crate::cli::authoring::{Kind, Lang};

type File = (&'static str, &'static str);

/// A folder to begin with.
pub(super) struct Template {
    /// The kind, as the manifest has it.
    pub(super) word: &'static str,
    /// The language, as the manifest has it.
    pub(super) language: &'static str,
    /// For the README: where the code is and what building needs.
    pub(super) about: &'static str,
    /// Its files.
    pub(super) files: Vec<File>,
}

macro_rules! template {
    ($path:literal) => {
        include_str!(concat!("../../../../plugin-sdk/templates/", $path))
    };
}

const CASE: &str = "cases/example.json";

/// The template for a kind of plugin in a language.
///
/// # Errors
/// When there is none.
pub(super) fn find(lang: Lang, kind: Kind) -> Result<Template> {
    let (word, case) = match kind {
        Kind::Filter => ("filter", template!("cases/filter.json")),
        Kind::Transform => ("transform", template!("cases/transform.json")),
        Kind::Ingest => ("ingest", template!("cases/ingest.json")),
        Kind::Classify => ("classify", template!("cases/classify.json")),
        Kind::Sign => ("sign", template!("cases/sign.json")),
    };
    let (language, about, mut files) = match lang {
        Lang::Rust => ("rust", RUST, rust(kind)),
        Lang::Javascript => ("javascript", JAVASCRIPT, javascript(kind)),
        Lang::Python => ("python", PYTHON, python(kind)),
        Lang::C => ("c", C, c(kind)?),
        Lang::Other => bail!("there is no template for other languages"),
    };
    files.push(("README.md", template!("README.md")));
    if files.iter().all(|(path, _)| *path != CASE) {
        files.push((CASE, case));
    }
    Ok(Template { word, language, about, files })
}

const RUST: &str = "The code is `src/lib.rs`; `sdk/` is the SDK it builds against. Building needs \
                    [rustup](https://rustup.rs). `cargo test` runs the unit tests natively.";

fn rust(kind: Kind) -> Vec<File> {
    let library = match kind {
        Kind::Filter => template!("rust/filter.rs"),
        Kind::Transform => template!("rust/transform.rs"),
        Kind::Ingest => template!("rust/ingest.rs"),
        Kind::Classify => template!("rust/classify.rs"),
        Kind::Sign => template!("rust/sign.rs"),
    };
    vec![("Cargo.toml", template!("rust/Cargo.toml.in")), ("src/lib.rs", library)]
}

const JAVASCRIPT: &str = "The code is `plugin.js`; `hookgate.d.ts` tells editors what a plugin is \
                          given and answers. Building needs nothing but `hookgate`.";

fn javascript(kind: Kind) -> Vec<File> {
    let script = match kind {
        Kind::Filter => template!("javascript/filter.js"),
        Kind::Transform => template!("javascript/transform.js"),
        Kind::Ingest => template!("javascript/ingest.js"),
        Kind::Classify => template!("javascript/classify.js"),
        Kind::Sign => template!("javascript/sign.js"),
    };
    vec![("plugin.js", script), ("hookgate.d.ts", template!("javascript/hookgate.d.ts"))]
}

const PYTHON: &str = "The code is `plugin.py`. Building needs componentize-py: `python3 -m venv \
                      .venv && .venv/bin/pip install componentize-py==0.25.1`. The component \
                      has about 18 MB, more than a gateway takes unless its operator starts it \
                      with `--plugin-component-mib 32`.";

fn python(kind: Kind) -> Vec<File> {
    let module = match kind {
        Kind::Filter => template!("python/filter.py"),
        Kind::Transform => template!("python/transform.py"),
        Kind::Ingest => template!("python/ingest.py"),
        Kind::Classify => template!("python/classify.py"),
        Kind::Sign => template!("python/sign.py"),
    };
    vec![("plugin.py", module)]
}

const C: &str = "The code is `plugin.c`; `target/c/include/plugin.h`, there after the first build, \
                 is what it builds against. Building needs clang and lld.";

/// C has no JSON at hand, so there are templates only where none is needed.
fn c(kind: Kind) -> Result<Vec<File>> {
    match kind {
        Kind::Filter => {
            Ok(vec![("plugin.c", template!("c/filter.c")), (CASE, template!("c/filter.json"))])
        }
        Kind::Sign => Ok(vec![("plugin.c", template!("c/sign.c"))]),
        _ => bail!("in C there are templates for `filter` and `sign`; `plugins/` has an `ingest`"),
    }
}
