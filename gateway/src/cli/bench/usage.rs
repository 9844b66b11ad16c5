use std::{fs, io, path::Path};

use anyhow::{Context, Result};
use tokio::time::Instant;

use crate::cli::bench::figures::{Latencies, Quantiles};

const SYNCS: usize = 200;

/// What a process has used.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Usage {
    /// By all its threads, in user and kernel mode.
    pub(super) cpu_seconds: f64,
    /// Memory that is its own or shared, now.
    pub(super) resident_kib: f64,
    /// Bytes that it had written to disks.
    pub(super) written_bytes: f64,
}

impl Usage {
    /// Of a running process of this user, from `/proc`.
    pub(super) fn of(pid: u32) -> Result<Self> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            fs::read_to_string(&path).with_context(|| path)
        };
        let (stat, status, io) = (read("stat")?, read("status")?, read("io")?);
        let ticks = cpu_ticks(&stat).context("its CPU time cannot be read")?;
        Ok(Self {
            cpu_seconds: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
            resident_kib: field(&status, "VmRSS").context("its memory cannot be read")? as f64,
            written_bytes: field(&io, "write_bytes").context("its writes cannot be read")? as f64,
        })
    }

    /// Of this process.
    pub(super) fn own() -> Result<Self> {
        Self::of(std::process::id())
    }

    /// Memory of this process in which a page counts once, however often it is mapped: what
    /// proc_pid_smaps(5) calls the proportional set size.
    pub(super) fn own_proportional_kib() -> Result<f64> {
        let rollup = fs::read_to_string("/proc/self/smaps_rollup").context("/proc/self")?;
        Ok(field(&rollup, "Pss").context("its memory cannot be read")? as f64)
    }

    pub(super) fn resident_mib(&self) -> f64 {
        self.resident_kib / 1024.0
    }
}

/// User's and kernel's ticks: the 14th and 15th field of proc_pid_stat(5). The second is the
/// name, in which anything may stand.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11).map(str::parse::<u64>);
    Some(fields.next()?.ok()? + fields.next()?.ok()?)
}

/// The number behind `name:`.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|it| it.strip_prefix(name)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse().ok()
}

/// How long it takes to append so many bytes to a file in `folder` and sync them, one after the
/// other.
pub(super) fn sync_times(folder: &Path, bytes: usize) -> io::Result<Quantiles> {
    let mut file = tempfile::tempfile_in(folder)?;
    let (record, mut latencies) = (vec![b'x'; bytes], Latencies::default());
    for _ in 0..SYNCS {
        let started = Instant::now();
        io::Write::write_all(&mut file, &record)?;
        file.sync_data()?;
        latencies.record(started.elapsed());
    }
    Ok(latencies.quantiles())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_tells_is_read() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 3 4 5";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("7 (a) S 1"), None);
        assert_eq!(field("VmPeak:\t  9 kB\nVmRSS:\t 1234 kB\n", "VmRSS"), Some(1234));
        assert_eq!(field("cancelled_write_bytes: 5\nwrite_bytes: 6\n", "write_bytes"), Some(6));
        assert_eq!(field("", "VmRSS"), None);
    }

    #[test]
    fn this_process_uses_something() {
        assert!(Usage::own().unwrap().resident_mib() > 1.0);
    }
}
