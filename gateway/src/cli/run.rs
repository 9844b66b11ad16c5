use std::process::ExitCode;

use clap::{CommandFactory, Parser, error::ErrorKind};

use crate::cli::args::{Cli, Command};
use crate::cli::client::{Client, Failure};
use crate::cli::{
    bench, deliveries, demo, doctor, event_types, explain, login, output, plugin, replays,
    resources, send, serve, store, system, tail,
};
use crate::plugins::compiler_main;

const USAGE: u8 = 64;

/// Parses the command line, does what it says, and tells how it ended.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    match cli.command {
        Command::PluginCompiler { arguments } => compiler_main(&arguments),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "hookgate", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Command::Openapi => {
            output::line(crate::app::api_document().trim_end());
            ExitCode::SUCCESS
        }
        Command::Man { out } => told(write_man_pages(&out)),
        Command::Context(it) => told(login::contexts(it, cli.client.json)),
        Command::Serve(flags) => in_runtime(serve::run(*flags)),
        Command::Demo(flags) => in_runtime(demo::run(flags)),
        Command::Bench(it) => in_runtime(bench::run(it, cli.client)),
        Command::BenchPart { role } => in_runtime(async move { bench::play(&role).await }),
        Command::Store(it) => in_runtime(store::run(it, cli.client)),
        command => in_runtime(async move { as_client(command, cli.client).await }),
    }
}

async fn as_client(command: Command, args: crate::cli::args::ClientArgs) -> ExitCode {
    told(match Client::new(args) {
        Ok(client) => dispatch(command, &client).await,
        Err(failure) => Err(failure),
    })
}

fn told(outcome: Result<ExitCode, Failure>) -> ExitCode {
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            output::complain(&failure);
            failure.exit_code()
        }
    }
}

async fn dispatch(command: Command, client: &Client) -> Result<ExitCode, Failure> {
    match command {
        Command::Send(flags) => send::run(client, flags).await,
        Command::Tail(flags) => tail::run(client, flags).await,
        Command::Explain { event } => explain::run(client, &event).await,
        Command::Events(it) => resources::events(client, it).await,
        Command::Endpoints(it) => resources::endpoints(client, it).await,
        Command::Deliveries(it) => deliveries::deliveries(client, it).await,
        Command::DeadLetters(it) => resources::dead_letters(client, it).await,
        Command::Tenants(it) => resources::tenants(client, it).await,
        Command::Keys(it) => resources::keys(client, it).await,
        Command::Plugin(it) => plugin::run(client, it).await,
        Command::EventTypes(it) => event_types::run(client, it).await,
        Command::Replays(it) => replays::run(client, it).await,
        Command::Login(it) => login::run(client, it).await,
        Command::Doctor(it) => doctor::run(client, *it).await,
        Command::LogLevel { level } => system::log_level(client, level).await,
        Command::Serve(_)
        | Command::Store(_)
        | Command::Demo(_)
        | Command::Bench(_)
        | Command::BenchPart { .. }
        | Command::Completions { .. }
        | Command::Context(_)
        | Command::Man { .. }
        | Command::Openapi
        | Command::PluginCompiler { .. } => unreachable!("not a client's command"),
    }
}

fn write_man_pages(folder: &std::path::Path) -> Result<ExitCode, Failure> {
    let made = std::fs::create_dir_all(folder);
    let made = made.and_then(|()| clap_mangen::generate_to(Cli::command(), folder));
    made.map_err(|it| Failure::other(format!("{}: {it}", folder.display())))?;
    Ok(ExitCode::SUCCESS)
}

fn in_runtime(work: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => {
            output::complain(&Failure::other(format!("no runtime: {error}")));
            ExitCode::FAILURE
        }
    }
}

/// A mistake on the command line: 2 as everywhere, but 64 for `serve`, whose callers are
/// supervisors (sysexits.h).
fn refuse(error: &clap::Error) -> ExitCode {
    // Nobody may be reading any more.
    let _ = error.print();
    let serving = std::env::args().nth(1).is_some_and(|it| it == "serve");
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ if serving => ExitCode::from(USAGE),
        _ => ExitCode::from(2),
    }
}
