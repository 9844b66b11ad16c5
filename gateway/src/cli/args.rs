use std::{path::PathBuf, time::Duration};

use clap::{ArgMatches, Args, Parser, Subcommand, parser::ValueSource};
use clap_complete::Shell;

use crate::cli::bench::Bench;
use crate::cli::{
    access, deliveries, demo, doctor, event_types, ingest, login, plugin, portal_sessions, replays,
    resources, send, serve, store, tail, values,
};

/// A webhook gateway: durable events, sandboxed Wasm plugins, signed deliveries with retries.
///
/// Examples:
///   hookgate demo                                    see it all work
///   hookgate serve --data-dir ./data                 run the gateway
///   hookgate endpoints create https://shop.example/hooks --type 'order.*'
///   hookgate send order.created -d '{"id": 1}'
///   hookgate tail                                    watch events and outcomes live
///
/// Exit codes: 0 done · 1 failed · 2 usage · 3 no permission · 4 not found · 5 conflict ·
/// 6 unreachable · 7 partly failed · 8 a plugin's cases failed. `serve`: 64 configuration ·
/// 65 damaged store · 73 data directory in use · 74 store failed · 78 newer format.
#[derive(Debug, Parser)]
#[command(name = "hookgate", version, verbatim_doc_comment)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) client: ClientArgs,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Whom to talk to, and how to show what it says. They have a heading of their own: a command's own
/// options come first in its help.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub(super) struct ClientArgs {
    /// The gateway's address [default: the one of `hookgate login`, else http://127.0.0.1:8080]
    #[arg(long, global = true, env = "HOOKGATE_SERVER", value_name = "URL")]
    pub(super) server: Option<String>,
    /// An operator's or a tenant's key
    #[arg(long, global = true, env = "HOOKGATE_KEY", value_name = "KEY", hide_env_values = true)]
    pub(super) key: Option<String>,
    /// Which of the servers that were logged in to [default: the one in use]
    #[arg(long, global = true, env = "HOOKGATE_CONTEXT", value_name = "NAME")]
    pub(super) context: Option<String>,
    /// The tenant [default: the one of `hookgate login`, else `default`]
    #[arg(long, global = true, env = "HOOKGATE_TENANT", value_name = "NAME")]
    pub(super) tenant: Option<String>,
    /// Print JSON: one document, or a line each where there is no end; what went wrong too
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// How long the server may say nothing [default: 30s, 5m where it has something to do]
    #[arg(long, global = true, value_parser = values::span, value_name = "DURATION")]
    pub(super) timeout: Option<Duration>,
}

impl ClientArgs {
    /// Flags win over the environment: whoever names a context on the command line means its
    /// server and its key. What is empty in the environment is not set.
    pub(super) fn settle(&mut self, matches: &ArgMatches) {
        let said = |name: &str| matches.value_source(name) == Some(ValueSource::CommandLine);
        let named = said("context");
        for (name, value) in [
            ("server", &mut self.server),
            ("key", &mut self.key),
            ("context", &mut self.context),
            ("tenant", &mut self.tenant),
        ] {
            let empty = value.as_ref().is_some_and(String::is_empty);
            if !said(name) && (named || empty) {
                *value = None;
            }
        }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the gateway
    Serve(Box<serve::Flags>),
    /// Watch the gateway do its work on real parts: store, plugins, receivers
    Demo(demo::Flags),
    /// Publish one event, or a file of them as NDJSON
    Send(send::Flags),
    /// Watch events and outcomes live
    Tail(tail::Flags),
    /// Look events up
    #[command(subcommand)]
    Events(resources::Events),
    /// Tell why each endpoint did or did not get an event
    Explain {
        /// The event's id
        event: String,
    },
    /// Register, change and test endpoints
    #[command(subcommand)]
    Endpoints(resources::Endpoints),
    /// Look deliveries up and repeat them
    #[command(subcommand)]
    Deliveries(deliveries::Deliveries),
    /// Look dead letters up, redrive or delete them
    #[command(subcommand)]
    DeadLetters(resources::DeadLetters),
    /// The catalogue of event types with their schemas
    #[command(subcommand)]
    EventTypes(event_types::EventTypes),
    /// Send events of the past once more
    #[command(subcommand)]
    Replays(replays::Replays),
    /// Make and delete tenants (operator)
    #[command(subcommand)]
    Tenants(access::Tenants),
    /// Make and revoke a tenant's keys (operator)
    #[command(subcommand)]
    Keys(access::Keys),
    /// Let a tenant's own people in for a while
    #[command(subcommand)]
    PortalSessions(portal_sessions::PortalSessions),
    /// Who changed what
    #[command(subcommand)]
    Audit(access::Audit),
    /// Write, build, test and deploy plugins
    #[command(subcommand)]
    Plugin(plugin::Plugin),
    /// The plugins that see each event before it is stored
    #[command(subcommand)]
    Ingest(ingest::Ingest),
    /// Check a store, back it up and restore it
    #[command(subcommand)]
    Store(store::Store),
    /// Measure what a gateway does beside what the machine can do
    #[command(subcommand)]
    Bench(Bench),
    Login(login::Login),
    /// Servers that were logged in to
    #[command(subcommand)]
    Context(login::Command),
    Doctor(Box<doctor::Doctor>),
    /// Tell whether the gateway can take events: exit 0, or 6 with the reason why not
    Ready,
    /// Show how much the gateway logs, or change it until its next start (operator)
    LogLevel {
        /// A level, or levels by part: `info,hookgate::dispatch=debug`
        level: Option<String>,
    },
    /// Write man pages, one for each command
    Man {
        /// Where to put them
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Print the API as an OpenAPI document
    Openapi,
    /// Print a completion script
    Completions {
        /// For which shell
        shell: Shell,
    },
    /// Compiles a plugin; the gateway calls it
    #[command(hide = true)]
    PluginCompiler {
        /// Source, target and limits
        arguments: Vec<String>,
    },
    /// Plays a part in a measurement; `bench` calls it
    #[command(hide = true)]
    BenchPart {
        /// Which, as JSON
        role: String,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_can_be_parsed() {
        Cli::command().debug_assert();
    }
}
