use std::process::ExitCode;

use anyhow::Result;
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinSet;

use crate::cli::bench::part::{Ready, Role};
use crate::cli::bench::receiver::Receiver;
use crate::cli::bench::{bound, load, sender};
use crate::cli::client::Failure;
use crate::cli::output;

/// Plays a part until nobody gives orders any more.
pub(in crate::cli) async fn play(role: &str) -> ExitCode {
    match try_play(role).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&Failure::other(format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

async fn try_play(role: &str) -> Result<()> {
    let mut tasks = JoinSet::new();
    match serde_json::from_str(role)? {
        Role::Load => obey(String::new(), async |order| load::run(order).await).await,
        Role::Receiver(mood) => {
            let receiver = Receiver::start(mood, &mut tasks).await?;
            obey(receiver.url.clone(), async |order| Ok(receiver.obey(order))).await
        }
        Role::BoundIngest(folder) => {
            let url = bound::start(&folder, None, &mut tasks).await?;
            obey(url, async |(): ()| Ok(())).await
        }
        Role::BoundEndToEnd(folder, sink) => {
            let url = bound::start(&folder, Some(&sink), &mut tasks).await?;
            obey(url, async |(): ()| Ok(())).await
        }
        Role::Sender { url, bare } => {
            obey(String::new(), async |order| sender::run(&url, bare, order)).await
        }
    }
}

/// Says that it is ready, and answers each order.
async fn obey<O: DeserializeOwned, T: Serialize>(
    url: String,
    mut answer: impl AsyncFnMut(O) -> Result<T>,
) -> Result<()> {
    say(&Ok(Ready { url }))?;
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    while let Some(order) = orders.next_line().await? {
        say(&answer(serde_json::from_str(&order)?).await)?;
    }
    Ok(())
}

fn say<T: Serialize>(answer: &Result<T>) -> Result<()> {
    let answer = answer.as_ref().map_err(|it| format!("{it:#}"));
    output::line(&serde_json::to_string(&answer)?);
    Ok(())
}
