//! A target of `hookgate::fuzz` under libFuzzer, the one that `TARGET` names. `.ci/fuzz` builds it
//! so and runs all of them.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod target {
    use std::{fs, path::Path, sync::OnceLock};

    use hookgate::fuzz::{TARGETS, Target};

    /// The one that was asked for.
    fn target() -> &'static Target {
        static TARGET: OnceLock<&Target> = OnceLock::new();
        TARGET.get_or_init(|| {
            let name = std::env::var("TARGET").expect("TARGET names one");
            TARGETS.iter().find(|it| it.name == name).expect("there is one of this name")
        })
    }

    /// Puts the inputs to begin with where `SEEDS` says.
    fn write_seeds() {
        let Ok(folder) = std::env::var("SEEDS") else { return };
        for (place, seed) in (target().seeds)().iter().enumerate() {
            fs::write(Path::new(&folder).join(format!("seed-{place}")), seed).expect("a file");
        }
    }

    libfuzzer_sys::fuzz_target!(
        init: write_seeds(),
        |input: &[u8]| (target().run)(input)
    );
}

#[cfg(not(fuzzing))]
fn main() {
    panic!("it is built with what libFuzzer steers by: .ci/fuzz");
}
