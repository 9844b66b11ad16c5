use std::process::ExitCode;

use clap::{
    CommandFactory, FromArgMatches,
    builder::Resettable,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::cli::args::{Cli, Command};
use crate::cli::client::{Client, Failure};
use crate::cli::{
    access, bench, deliveries, demo, doctor, event_types, explain, ingest, login, output, plugin,
    portal_sessions, replays, resources, send, serve, store, system, tail,
};
use crate::plugins::compiler_main;

const USAGE: u8 = 64;

/// Parses the command line, does what it says, and tells how it ended.
pub fn main() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(error),
    };
    if cli.client.json {
        output::complain_as_json();
    }
    match cli.command {
        Command::PluginCompiler { arguments } => compiler_main(&arguments),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut shown(), "hookgate", &mut script);
            output::line(String::from_utf8_lossy(&script).trim_end());
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

fn parse() -> clap::error::Result<Cli> {
    let matches = without_empty(Cli::command()).try_get_matches()?;
    let cli = Cli::from_arg_matches(&matches);
    let mut cli = cli.map_err(|it| it.format(&mut Cli::command()))?;
    cli.client.settle(&matches);
    Ok(cli)
}

/// An empty variable of the environment is as if it were not set: so compose files and shells write
/// what is not given.
fn without_empty(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|it| {
        let value = it.get_env().and_then(std::env::var_os);
        if value.is_some_and(|it| it.is_empty()) { it.env(Resettable::Reset) } else { it }
    });
    command.mut_subcommands(without_empty)
}

/// The command line without what only the gateway itself calls.
fn shown() -> clap::Command {
    let whole = Cli::command();
    let shown = whole.get_subcommands().filter(|it| !it.is_hide_set());
    clap::Command::new("hookgate")
        .version(env!("CARGO_PKG_VERSION"))
        .args(whole.get_arguments())
        .subcommands(shown)
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
        Command::Tenants(it) => access::tenants(client, it).await,
        Command::Keys(it) => access::keys(client, it).await,
        Command::PortalSessions(it) => portal_sessions::run(client, it).await,
        Command::Audit(it) => access::audit(client, it).await,
        Command::Plugin(it) => plugin::run(client, it).await,
        Command::Ingest(it) => ingest::run(client, it).await,
        Command::EventTypes(it) => event_types::run(client, it).await,
        Command::Replays(it) => replays::run(client, it).await,
        Command::Login(it) => login::run(client, it).await,
        Command::Doctor(it) => doctor::run(client, *it).await,
        Command::Ready => system::ready(client).await,
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
fn refuse(mut error: clap::Error) -> ExitCode {
    if let Some(ContextValue::Strings(names)) = error.get(ContextKind::ValidSubcommand) {
        let hidden = ["plugin-compiler", "bench-part"];
        let names = names.iter().filter(|it| !hidden.contains(&it.as_str())).cloned().collect();
        error.insert(ContextKind::ValidSubcommand, ContextValue::Strings(names));
    }
    let printed = error.print();
    let serving = std::env::args().nth(1).is_some_and(|it| it == "serve");
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => match printed {
            Ok(()) => ExitCode::SUCCESS,
            Err(unwritten) => output::unwritten(&unwritten),
        },
        _ if serving => ExitCode::from(USAGE),
        _ => ExitCode::from(2),
    }
}
