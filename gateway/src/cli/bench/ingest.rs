use anyhow::Result;

use crate::cli::args::ClientArgs;
use crate::cli::bench::args::Ingest;
use crate::cli::bench::gateway::Gateway;
use crate::cli::bench::part::{Part, Role};
use crate::cli::bench::progress::Progress;
use crate::cli::bench::report::Section;
use crate::cli::bench::stage::{Run, Stage, Whose};
use crate::cli::bench::usage::sync_times;

pub(super) async fn run(
    flags: &Ingest,
    args: &ClientArgs,
    progress: &Progress,
) -> Result<Vec<Section>> {
    let mut stage = Stage::set(&flags.common, progress).await?;
    let mut sections = Vec::new();
    for &producers in &flags.producers {
        let (mut ours, mut bare, mut syncs) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=flags.common.rounds {
            stage.tell(&format!("ingest, {producers} producers"), round);
            let folder = stage.folder()?;
            syncs.push(sync_times(folder.path(), flags.common.size)?);
            let bound = Part::start(&Role::BoundIngest(folder.path().to_owned())).await?;
            let run = Run::new(&bound.url, producers);
            bare.push(stage.ingest(&Whose::Bound(&bound), &run).await?);
            drop(bound);
            let gateway = match flags.target.there {
                true => Gateway::there(args.clone()).await?,
                false => Gateway::start(&folder.path().join("data")).await?,
            };
            let run = Run::at(&gateway, producers);
            ours.push(stage.ingest(&Whose::Gateway(&gateway), &run).await?);
            gateway.leave().await?;
        }
        let mut section = Section::beside(format!("{producers} producers"), &ours, &bare);
        section.syncs(&syncs);
        sections.push(section);
    }
    Ok(sections)
}
