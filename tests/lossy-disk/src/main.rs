//! A disk that forgets, told by lines on its standard input what to do, and answering each with
//! one on its standard output: `mount PATH`, `unmount`, `fail sync|write|nothing`,
//! `lose CHANCE` (the power fails; the answer is how many sectors are lost), `syncs`. Its argument
//! is the seed of what chance decides.

mod disk;

use std::{
    io::{BufRead, Write},
    path::Path,
};

use disk::{Failing, LossyDisk};

type Answer = Result<u64, Box<dyn std::error::Error>>;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seed = std::env::args().nth(1).ok_or("a seed is missing")?.parse()?;
    let (disk, mut chance) = (LossyDisk::new(), fastrand::Rng::with_seed(seed));
    let mut mounted = None;
    let mut answers = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (command, argument) = line.split_once(' ').unwrap_or((&line, ""));
        let answer: Answer = match command {
            "mount" => disk.mount(Path::new(argument)).map_err(Into::into).map(|it| {
                mounted = Some(it);
                0
            }),
            "unmount" => {
                drop(mounted.take());
                Ok(0)
            }
            "fail" => fail(&disk, argument),
            "lose" => argument
                .parse()
                .map_err(Into::into)
                .map(|surviving| disk.lose_power(&mut chance, surviving)),
            "syncs" => Ok(disk.syncs()),
            _ => Err("no such command".into()),
        };
        match answer {
            Ok(number) => writeln!(answers, "{number}")?,
            Err(error) => writeln!(answers, "failed: {error}")?,
        }
        answers.flush()?;
    }
    Ok(())
}

fn fail(disk: &LossyDisk, what: &str) -> Answer {
    disk.fail(match what {
        "sync" => Some(Failing::Sync),
        "write" => Some(Failing::Write),
        "nothing" => None,
        _ => return Err("no such failure".into()),
    });
    Ok(0)
}
