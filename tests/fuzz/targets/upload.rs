//! Any bytes as an upload: what is told of them before they are compiled.
#![no_main]

use std::path::PathBuf;

use hookgate::plugins::{Compiler, Config, inspect};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|component: &[u8]| {
    let config = Config::new(PathBuf::new(), Compiler::InProcess);
    if let Err(refusal) = inspect(component, &config) {
        assert!(refusal.code.starts_with("plugin_") && !refusal.detail.is_empty());
    }
});
