//! Who waits for a plugin stands in line, tenant by tenant, in the order of coming: of many that
//! ask for a place in the queue of calls now and then, some would never find one.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Semaphore;

/// Tenants whose lines are kept although nobody may stand in them.
const LINES_MAX: usize = 1024;

/// The lines of all tenants.
#[derive(Debug)]
pub(super) struct Lines {
    /// How many of a line may have calls in the queue at once; the rest of the queue is left to
    /// those who do not wait.
    at_once: usize,
    lines: Mutex<BTreeMap<Arc<str>, Arc<Semaphore>>>,
}

impl Lines {
    pub(super) fn new(at_once: usize) -> Self {
        Self { at_once, lines: Mutex::default() }
    }

    /// The tenant's line.
    pub(super) fn of(&self, tenant: &Arc<str>) -> Arc<Semaphore> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= LINES_MAX && !lines.contains_key(tenant) {
            lines.retain(|_, it| Arc::strong_count(it) > 1);
        }
        let new = || Arc::new(Semaphore::new(self.at_once));
        lines.entry(tenant.clone()).or_insert_with(new).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_kept_while_somebody_stands_in_it() {
        let lines = Lines::new(2);
        let name = |n: usize| Arc::from(format!("t{n}"));
        let stood_in = lines.of(&name(0));
        for n in 0..3 * LINES_MAX {
            let _ = lines.of(&name(n));
        }
        assert!(Arc::ptr_eq(&stood_in, &lines.of(&name(0))));
        assert!(lines.lines.lock().unwrap().len() <= LINES_MAX);
        assert_eq!(stood_in.available_permits(), 2);
    }
}
