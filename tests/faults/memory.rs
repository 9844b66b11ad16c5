//! Less memory than the machine has: a bound that the kernel draws around a process, as around a
//! container. Within it the gateway works; where it is drawn so tight that the kernel kills it,
//! nothing is lost.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use hookgate_tests::Ledger;
use tokio::time::Instant;

use crate::process::{Start, times};

const MIB: u64 = 1024 * 1024;
/// What a small container has.
const CONTAINER_BYTES: u64 = 512 * MIB;
/// What of it the gateway may take for itself; the rest is for files and sockets.
const OWN_BYTES: u64 = 400 * MIB;
const KILLS: u64 = 3;

/// Processes that get so much memory together and no more. Dropped, it is removed.
struct Container {
    folder: PathBuf,
    /// The file that takes the bound in bytes.
    bound: &'static str,
    /// The file that counts whom the kernel killed for it.
    kills: &'static str,
}

impl Container {
    /// Of the first kind of cgroups or of the second, as the machine has them.
    fn make(name: &str) -> Self {
        let name = format!("hookgate-{name}-{}", std::process::id());
        let (above, bound, kills, swap) = match Path::new("/sys/fs/cgroup/memory").is_dir() {
            true => {
                let files = ("memory.limit_in_bytes", "memory.oom_control", "memory.swappiness");
                (Path::new("/sys/fs/cgroup/memory"), files.0, files.1, files.2)
            }
            false => {
                let above = Path::new("/sys/fs/cgroup");
                // Where it is on already, this may be refused.
                let _ = fs::write(above.join("cgroup.subtree_control"), "+memory");
                (above, "memory.max", "memory.events", "memory.swap.max")
            }
        };
        let it = Self { folder: above.join(name), bound, kills };
        fs::create_dir(&it.folder).expect("a cgroup can be made: run this as root");
        it.bound(CONTAINER_BYTES).expect("a cgroup's memory can be bounded");
        // A machine without swap may not have the file.
        let _ = fs::write(it.folder.join(swap), "0");
        it
    }

    /// Draws the bound. It can be refused where more is taken already; it holds later then.
    fn bound(&self, bytes: u64) -> io::Result<()> {
        fs::write(self.folder.join(self.bound), bytes.to_string())
    }

    /// How often the kernel killed somebody in here for want of memory.
    fn kills(&self) -> u64 {
        let text = fs::read_to_string(self.folder.join(self.kills)).unwrap();
        let count = text.lines().find_map(|it| it.strip_prefix("oom_kill "));
        count.expect("the kernel counts").parse().unwrap()
    }

    fn start(&self, data: &Path) -> Start {
        let entered = self.folder.join("cgroup.procs");
        let enter = ["sh", "-c", "echo $$ > \"$0\" && exec \"$@\""].map(OsStr::new);
        let wrapper = [&enter[..], &[entered.as_os_str()]].concat();
        Start::behind(&wrapper, data)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Whom it held has been waited for.
        let _ = fs::remove_dir(&self.folder);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_events_do_not_fill_a_small_container() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("memory");
    let container = Container::make("large");
    let mut ledger = Ledger::open(7).await;
    let gateway = container.start(&data).run().unwrap();
    ledger.at(&gateway.server);
    ledger.register("20ms").await;
    ledger.produce("p", 8, (Duration::ZERO, 200_000));
    tokio::time::sleep(Duration::from_secs(8)).await;
    ledger.quiesce().await;
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.child.id())).unwrap();
    let peak = status.lines().find_map(|it| it.strip_prefix("VmHWM:")).unwrap();
    let peak = peak.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024;
    println!("{} events of 200 KB: peak {} MiB", ledger.acknowledged(), peak / MIB);
    assert!(peak < OWN_BYTES, "{peak} bytes");
    ledger.check(0).await;
    assert_eq!(container.kills(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_for_want_of_memory_it_has_lost_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("tight");
    let container = Container::make("tight");
    let mut ledger = Ledger::open(7).await;
    let kills = KILLS * times();
    for kill in 1..=kills {
        container.bound(CONTAINER_BYTES).unwrap();
        let mut gateway = container.start(&data).run().unwrap();
        ledger.at(&gateway.server);
        if kill == 1 {
            ledger.register("20ms").await;
            ledger.produce("p", 4, (Duration::from_millis(1), 20_000));
        }
        let before = ledger.acknowledged();
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(ledger.acknowledged() > before, "there is load: {}", gateway.said());
        // Tighter and tighter, until it wants a page more than there is.
        let (mut bytes, started) = (CONTAINER_BYTES, Instant::now());
        while gateway.child.try_wait().unwrap().is_none() {
            bytes = bytes.saturating_sub(8 * MIB).max(MIB);
            let _ = container.bound(bytes);
            assert!(started.elapsed() < Duration::from_secs(30), "it lives on {bytes} bytes");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(gateway.ended(Duration::ZERO).await, None, "{}", gateway.said());
        assert_eq!(container.kills(), kill, "by the kernel: {}", gateway.said());
        println!("killed {:?} after the bound began to fall", started.elapsed());
    }
    container.bound(CONTAINER_BYTES).unwrap();
    let gateway = container.start(&data).run().unwrap();
    ledger.at(&gateway.server);
    ledger.quiesce().await;
    println!("{kills} kills for memory: {:?}", ledger.check(kills as usize).await);
    assert_eq!(container.kills(), kills);
}
