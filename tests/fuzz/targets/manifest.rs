//! Any text as a plugin's manifest.
#![no_main]

use hookgate::cli::authoring::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = toml::from_str::<Manifest>(text);
});
