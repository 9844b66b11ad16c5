use std::{
    fs::File,
    io::{BufReader, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use serde_json::json;

use crate::app::StartError;
use crate::app::offline::{self, Step};
use crate::cli::args::ClientArgs;
use crate::cli::client::{Client, Failure};
use crate::cli::output;
use crate::world::{Clock, SystemClock};

const DAMAGED: u8 = 65;

/// What is done with a store as a whole.
#[derive(Debug, Subcommand)]
pub(super) enum Store {
    /// Check a store that no gateway has open: every file, every row, and that they fit together
    ///
    /// Exit codes: 0 whole · 65 damaged · 73 in use · 74 cannot be read · 78 newer format
    Verify {
        #[command(flatten)]
        place: Place,
        /// Give up what cannot be read, go on with the rest, and write down what is lost
        #[arg(long)]
        accept_loss: bool,
    },
    /// Write a backup: of a running gateway through its API, or of a directory with --data-dir
    Backup {
        /// Where to put it
        folder: PathBuf,
        /// The store of a gateway that does not run
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Make a store in a new directory from a backup
    ///
    /// Exit codes: 0 done · 2 no backup file · 5 there is a store already · 65 damaged backup ·
    /// 74 cannot be read or written · 78 newer format
    Restore {
        /// The backup
        backup: PathBuf,
        #[command(flatten)]
        place: Place,
    },
}

/// Which store.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// Where the store lies
    #[arg(long, env = "HOOKGATE_DATA_DIR", value_name = "DIR", default_value = "hookgate-data")]
    data_dir: PathBuf,
}

pub(super) async fn run(command: Store, client: ClientArgs) -> ExitCode {
    let json = client.json;
    match command {
        Store::Verify { place, accept_loss } => verify(&place.data_dir, accept_loss, json),
        Store::Backup { folder, data_dir: Some(data_dir) } => {
            report_backup(make_backup(&folder, &data_dir), json)
        }
        Store::Backup { folder, data_dir: None } => {
            report_backup(download(client, &folder).await, json)
        }
        Store::Restore { backup, place } => match restore(&backup, &place.data_dir) {
            Ok(rows) => {
                let data_dir = place.data_dir.display().to_string();
                output::one(json, &json!({ "data_dir": data_dir, "rows": rows }));
                ExitCode::SUCCESS
            }
            Err(failure) => {
                output::complain(&failure);
                failure.exit_code()
            }
        },
    }
}

fn restore(backup: &Path, data_dir: &Path) -> Result<u64, Failure> {
    // Nothing is written before all of it is known to be whole, so that it is read twice.
    let file = std::fs::metadata(backup).map(|it| it.is_file());
    if backup.as_os_str() == "-" || file.is_ok_and(|it| !it) {
        return Err(Failure::usage(format!("{} is no file", backup.display()))
            .with_help("a backup is read twice: give the file itself, not a pipe or its folder"));
    }
    if offline::has_store(data_dir) {
        let what = format!("{} has a store already", data_dir.display());
        return Err(Failure::conflict(what).with_help("give a new directory"));
    }
    offline::restore(backup, data_dir).map_err(|it| Failure::of_store(&it))
}

fn verify(folder: &Path, accept_loss: bool, json: bool) -> ExitCode {
    if accept_loss {
        start_logging();
        return match offline::accept_loss(folder) {
            Ok(()) => verify(folder, false, json),
            Err(error) => refuse(&error),
        };
    }
    let style = ProgressStyle::with_template("{spinner} {msg}");
    let bar = ProgressBar::new_spinner().with_style(style.expect("a template"));
    let (mut files, mut bytes) = (0_u64, 0_u64);
    let verified = offline::verify(folder, &mut |step| match step {
        Step::File(_, more) => {
            (files, bytes) = (files + 1, bytes + more);
            bar.set_message(format!("{files} files, {} MiB", bytes / 1024 / 1024));
        }
        Step::Table(name, rows) => bar.set_message(format!("{name}: {rows} rows")),
    });
    bar.finish_and_clear();
    let verified = match verified {
        Ok(verified) => verified,
        Err(error) => return refuse(&error),
    };
    let whole = verified.damage.is_empty();
    let (files, bytes) = (verified.files, verified.bytes);
    output::one(
        json,
        &json!({
            "whole": whole,
            "files": files,
            "bytes": bytes,
            "holds_from": verified.holds_from,
            "damage": verified.damage,
        }),
    );
    match whole {
        true => ExitCode::SUCCESS,
        false => {
            let help = match verified.fatal {
                true => "restore a backup: without what is damaged nothing can be kept",
                false => "restore a backup, or give up what is damaged with --accept-loss",
            };
            output::complain(&Failure::other("the store is damaged").with_help(help));
            ExitCode::from(DAMAGED)
        }
    }
}

/// Loses nothing of what the store says about what was given up.
fn start_logging() {
    // Whoever set a subscriber before keeps it.
    let _ = tracing_subscriber::fmt().with_writer(std::io::stderr).try_init();
}

async fn download(client: ClientArgs, folder: &Path) -> Result<(PathBuf, u64), Failure> {
    let client = Client::new(client)?;
    let mut response = client.send(client.request(Method::POST, "/v1/system/backup")).await?;
    let (mut file, partial) = begin(folder)?;
    while let Some(chunk) = client.chunk(&mut response).await? {
        let written = file.write_all(&chunk);
        written.map_err(|it| partial.failed(it))?;
    }
    finish(&file, &partial)
}

fn make_backup(folder: &Path, data_dir: &Path) -> Result<(PathBuf, u64), Failure> {
    let (mut file, partial) = begin(folder)?;
    offline::backup(data_dir, &mut file).map_err(|it| Failure::of_store(&it))?;
    finish(&file, &partial)
}

/// A backup that is not whole yet, which its name tells. What came to nothing is not left behind.
struct Partial(PathBuf);

impl Partial {
    fn failed(&self, error: impl std::fmt::Display) -> Failure {
        Failure::other(format!("{}: {error}", self.0.display()))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // A whole one has another name by now.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A new file in `folder`.
fn begin(folder: &Path) -> Result<(File, Partial), Failure> {
    let now = SystemClock.now().to_string().replace([':', '-'], "");
    let path = folder.join(format!("hookgate-{now}.partial"));
    // As the data directory, a copy of it is for nobody else to read.
    let mut file = File::options();
    let file = file.write(true).create_new(true).mode(0o600);
    let made = std::fs::create_dir_all(folder).and_then(|()| file.open(&path));
    match made {
        Ok(file) => Ok((file, Partial(path))),
        Err(error) => Err(Failure::other(format!("{}: {error}", path.display()))),
    }
}

/// Reads the file through, and gives it its name when it is whole.
fn finish(file: &File, partial: &Partial) -> Result<(PathBuf, u64), Failure> {
    let whole = partial.0.with_extension("backup");
    file.sync_all().map_err(|it| partial.failed(it))?;
    let written = File::open(&partial.0).map_err(|it| partial.failed(it))?;
    let rows = offline::check_backup(BufReader::new(written)).map_err(|it| partial.failed(it))?;
    std::fs::rename(&partial.0, &whole).map_err(|it| partial.failed(it))?;
    // Else a power failure may take the name away again.
    let folder = whole.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|it| it.sync_all()).map_err(|it| partial.failed(it))?;
    Ok((whole, rows))
}

fn report_backup(made: Result<(PathBuf, u64), Failure>, json: bool) -> ExitCode {
    match made {
        Ok((path, rows)) => {
            output::one(json, &json!({ "backup": path.display().to_string(), "rows": rows }));
            output::note("the master key is not in it: keep it apart, no other opens the backup");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            output::complain(&failure);
            failure.exit_code()
        }
    }
}

fn refuse(error: &StartError) -> ExitCode {
    let failure = Failure::of_store(error);
    output::complain(&failure);
    failure.exit_code()
}
