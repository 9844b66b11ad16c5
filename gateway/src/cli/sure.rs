//! Whether somebody means it: on a terminal, what is deleted for good is asked about first.

use std::io::{BufRead, IsTerminal};

use clap::Args;

use crate::cli::client::{Client, Failure};
use crate::cli::output;

/// Who is sure.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Sure {
    /// Do not ask; without a terminal nobody is asked
    #[arg(short, long)]
    yes: bool,
}

impl Sure {
    /// Asks whether this is to be deleted.
    ///
    /// # Errors
    /// When the answer is not yes.
    pub(super) fn of(self, client: &Client, what: &str, id: &str) -> Result<(), Failure> {
        let (tenant, server) = (&client.tenant, &client.server);
        let question = format!("delete {what} {id} of tenant {tenant} at {server}? [y/N] ");
        self.agree(&question, |answer| ["y", "yes"].contains(&&*answer.to_ascii_lowercase()))
    }

    /// Asks for the name of what goes with everything in it.
    ///
    /// # Errors
    /// When the answer is not the name.
    pub(super) fn of_all_in(self, client: &Client, what: &str, name: &str) -> Result<(), Failure> {
        let server = &client.server;
        let question =
            format!("delete {what} {name} at {server} with all that is its own? Type its name: ");
        self.agree(&question, |answer| answer == name)
    }

    fn agree(self, question: &str, agrees: impl Fn(&str) -> bool) -> Result<(), Failure> {
        // A script has no terminal; who cannot read the question cannot answer it.
        if self.yes || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return Ok(());
        }
        output::ask(question);
        let mut answer = String::new();
        let read = std::io::stdin().lock().read_line(&mut answer);
        match read.is_ok() && agrees(answer.trim()) {
            true => Ok(()),
            false => Err(Failure::other("nothing was deleted").with_help("--yes does not ask")),
        }
    }
}
