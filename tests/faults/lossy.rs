use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// What of a disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failing {
    /// Every sync of a file.
    Sync,
    /// Every write.
    Write,
}

/// A disk that forgets, in a process of its own (`tests/lossy-disk`): a file system that knows,
/// byte for byte, what was synced.
pub(crate) struct LossyDisk {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl LossyDisk {
    /// A new disk; `seed` decides which sectors are lost when its power fails.
    pub(crate) fn new(seed: u64) -> Self {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
        let program = tests.parent().unwrap().join("target/lossy-disk/debug/lossy-disk");
        let mut command = Command::new(&program);
        command.arg(seed.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect(".ci/faults builds the disk");
        let commands = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, commands, answers }
    }

    pub(crate) fn mount(&mut self, at: &Path) {
        self.ask(&format!("mount {}", at.display()));
    }

    pub(crate) fn unmount(&mut self) {
        self.ask("unmount");
    }

    /// From now on, until the power fails.
    pub(crate) fn fail(&mut self, failing: Failing) {
        self.ask(match failing {
            Failing::Sync => "fail sync",
            Failing::Write => "fail write",
        });
    }

    /// How many syncs there were.
    pub(crate) fn syncs(&mut self) -> u64 {
        self.ask("syncs")
    }

    /// The power fails. Of the sectors that were not synced, those survive that chance picks with
    /// this probability; names survive if their folder was synced. The number of lost sectors.
    pub(crate) fn lose_power(&mut self, surviving: f64) -> u64 {
        self.ask(&format!("lose {surviving}"))
    }

    fn ask(&mut self, command: &str) -> u64 {
        writeln!(self.commands, "{command}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer.trim().parse().unwrap_or_else(|_| panic!("{command}: {answer}"))
    }
}

impl Drop for LossyDisk {
    fn drop(&mut self) {
        let _ = writeln!(self.commands, "unmount");
        let _ = self.answers.read_line(&mut String::new());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
