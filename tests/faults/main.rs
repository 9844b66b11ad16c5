//! Real faults against the real binary: it is killed, its files are damaged, its disk fails, fills
//! up and forgets, its clock jumps. After each the books must balance.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]
#![expect(clippy::print_stdout, reason = "figures, for whoever runs it with --nocapture")]

mod backup;
mod crash;
mod damage;
mod io;
mod lossy;
mod memory;
mod power;
mod process;
mod watchdog;
