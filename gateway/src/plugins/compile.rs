use std::{path::Path, process::ExitCode, process::Stdio};

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::plugins::{Compiler, Config, Refusal, engine};

/// Compiles a component into what the engine maps and runs.
pub(super) async fn compile(component: &[u8], config: &Config) -> Result<Vec<u8>, Refusal> {
    match &config.compiler {
        Compiler::InProcess => {
            let engine = engine::compiling(config).map_err(|it| broken(&it))?;
            let compiled = engine.precompile_component(component);
            compiled.map_err(|it| Refusal::new("plugin_invalid", format!("{it:#}")))
        }
        Compiler::Child(executable) => compile_in_child(component, executable, config).await,
    }
}

async fn compile_in_child(
    component: &[u8],
    executable: &Path,
    config: &Config,
) -> Result<Vec<u8>, Refusal> {
    let folder = tempfile::Builder::new().prefix("compile-").tempdir_in(&config.cache);
    let folder = folder.map_err(|it| broken(&it))?;
    let (source, target) = (folder.path().join("component"), folder.path().join("compiled"));
    tokio::fs::write(&source, component).await.map_err(|it| broken(&it))?;
    let child = tokio::process::Command::new(executable)
        .arg("plugin-compiler")
        .args([&source, &target])
        .arg(config.compile_memory_max.to_string())
        .arg(config.compile_time_max.as_secs().max(1).to_string())
        .arg(config.stack_bytes_max.to_string())
        .arg(config.fuel.to_string())
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|it| broken(&it))?;
    let output = tokio::time::timeout(config.compile_time_max, child.wait_with_output()).await;
    let limit = "it does not compile within the time and memory that a plugin has for it";
    let output = output.map_err(|_| Refusal::new("plugin_compile_limit", limit))?;
    let output = output.map_err(|it| broken(&it))?;
    match output.status.code() {
        Some(0) => tokio::fs::read(&target).await.map_err(|it| broken(&it)),
        Some(REFUSED) => {
            Err(Refusal::new("plugin_invalid", String::from_utf8_lossy(&output.stderr).trim()))
        }
        // Killed at a limit, or out of memory.
        _ => Err(Refusal::new("plugin_compile_limit", limit)),
    }
}

const REFUSED: i32 = 3;

/// The child's side: `plugin-compiler SOURCE TARGET MEMORY SECONDS STACK FUEL`.
pub fn compiler_main(arguments: &[String]) -> ExitCode {
    match compile_here(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The parent reads it.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), error.as_bytes());
            ExitCode::from(REFUSED as u8)
        }
    }
}

fn compile_here(arguments: &[String]) -> Result<(), String> {
    let [source, target, memory, seconds, stack, fuel] = arguments else {
        return Err("this is for the gateway itself to call".to_owned());
    };
    let number = |it: &String| it.parse::<u64>().map_err(|it| it.to_string());
    let limit = |resource, it: u64| {
        setrlimit(resource, Rlimit { current: Some(it), maximum: Some(it) })
            .map_err(|it| it.to_string())
    };
    limit(Resource::As, number(memory)?)?;
    limit(Resource::Cpu, number(seconds)?)?;
    let mut config = Config::new(Path::new("").into(), Compiler::InProcess);
    config.stack_bytes_max = usize::try_from(number(stack)?).map_err(|it| it.to_string())?;
    config.fuel = fuel == "true";
    let component = std::fs::read(source).map_err(|it| it.to_string())?;
    let engine = engine::compiling(&config).map_err(|it| format!("{it:#}"))?;
    let compiled = engine.precompile_component(&component).map_err(|it| format!("{it:#}"))?;
    std::fs::write(target, compiled).map_err(|it| it.to_string())
}

fn broken(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new("plugin_compile_failed", format!("the compiler cannot run: {error}"))
}
