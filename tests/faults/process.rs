use std::{
    ffi::OsStr,
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use hookgate_tests::{OPERATOR_KEY, binary};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How much of everything: once for the gate, and as often as `HOOKGATE_FAULTS` says.
pub(crate) fn times() -> u64 {
    std::env::var("HOOKGATE_FAULTS").ok().and_then(|it| it.parse().ok()).unwrap_or(1)
}

/// A gateway that something is done to. Dropped, it is killed.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) server: String,
    pub(crate) log: PathBuf,
}

/// How a gateway is started.
pub(crate) struct Start {
    command: Command,
    log: PathBuf,
}

impl Start {
    pub(crate) fn on(data_dir: &Path) -> Self {
        Self::behind(&[], data_dir)
    }

    /// Started by another program: its name and arguments stand in front.
    pub(crate) fn behind(wrapper: &[&OsStr], data_dir: &Path) -> Self {
        let mut words = wrapper.iter().copied().chain([binary().as_os_str()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        command
            .args(["serve", "--allow-private-endpoints", "--listen", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(data_dir)
            .env("HOOKGATE_OPERATOR_KEY", OPERATOR_KEY)
            .env("HOOKGATE_LOG", "info");
        let name = data_dir.file_name().unwrap().to_string_lossy().into_owned();
        Self {
            command,
            log: std::env::temp_dir().join(format!("{name}-{}.log", std::process::id())),
        }
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn flag(mut self, flag: &str) -> Self {
        self.command.arg(flag);
        self
    }

    pub(crate) fn log_to(mut self, log: PathBuf) -> Self {
        self.log = log;
        self
    }

    /// Starts it; if it refuses, its exit code and what it said.
    pub(crate) fn run(mut self) -> Result<Process, (Option<i32>, String)> {
        let errors = File::options().append(true).create(true).open(&self.log).unwrap();
        let before = errors.metadata().unwrap().len() as usize;
        let mut child = self.command.stdout(Stdio::piped()).stderr(errors).spawn().unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        match serde_json::from_str::<Value>(&line) {
            Ok(first) => {
                let server = first["listening"].as_str().unwrap().to_owned();
                Ok(Process { child, server, log: self.log })
            }
            Err(_) => {
                let code = child.wait().unwrap().code();
                let text = std::fs::read(&self.log).unwrap_or_default();
                Err((code, String::from_utf8_lossy(&text[before..]).into_owned()))
            }
        }
    }
}

impl Process {
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Its exit code, once it has ended by itself; `None` after a signal.
    pub(crate) async fn ended(&mut self, within: Duration) -> Option<i32> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(tokio::time::Instant::now() < deadline, "it did not end: {}", self.said());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn terminate(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.child.wait().unwrap().code()
    }

    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
