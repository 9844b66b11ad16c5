use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::{PluginQuota, Quota};

/// What a tenant is granted, on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct QuotaRow {
    events_per_second: Option<f64>,
    burst: Option<u32>,
    backlog_max: Option<u64>,
    endpoints_max: Option<u32>,
    plugins: PluginQuotaRow,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct PluginQuotaRow {
    deadline_ms: Option<u64>,
    memory_bytes_max: Option<u64>,
    output_bytes_max: Option<u64>,
    log_lines_max: Option<u64>,
    log_bytes_max: Option<u64>,
    cpu_ms_per_second: Option<u64>,
}

impl From<&Quota> for QuotaRow {
    fn from(it: &Quota) -> Self {
        let PluginQuota {
            deadline,
            memory_bytes_max,
            output_bytes_max,
            log_lines_max,
            log_bytes_max,
            cpu_per_second,
        } = it.plugins;
        let millis = |it: Duration| u64::try_from(it.as_millis()).unwrap_or(u64::MAX);
        let plugins = PluginQuotaRow {
            deadline_ms: deadline.map(millis),
            memory_bytes_max,
            output_bytes_max,
            log_lines_max,
            log_bytes_max,
            cpu_ms_per_second: cpu_per_second.map(millis),
        };
        // Retention came later: it has a row of its own.
        let Quota {
            events_per_second,
            burst,
            backlog_max,
            endpoints_max,
            retention: _,
            plugins: _,
        } = *it;
        Self { events_per_second, burst, backlog_max, endpoints_max, plugins }
    }
}

impl QuotaRow {
    pub(super) fn into_noun(self) -> Quota {
        let Self { events_per_second, burst, backlog_max, endpoints_max, plugins: it } = self;
        let plugins = PluginQuota {
            deadline: it.deadline_ms.map(Duration::from_millis),
            memory_bytes_max: it.memory_bytes_max,
            output_bytes_max: it.output_bytes_max,
            log_lines_max: it.log_lines_max,
            log_bytes_max: it.log_bytes_max,
            cpu_per_second: it.cpu_ms_per_second.map(Duration::from_millis),
        };
        let retention = None;
        Quota { events_per_second, burst, backlog_max, endpoints_max, retention, plugins }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Retention;
    use crate::storage::catalog_row::TenantRow;
    use crate::storage::codec::decode;
    use crate::storage::floors::RetentionRow;

    #[test]
    fn a_tenant_from_before_there_was_retention_is_read() {
        // Slug, number, name, quota (of which the backlog is 5), made and changed at 1 and 2.
        let row = [1, 1, b'a', 7, 1, b'A', 0, 0, 1, 5, 0, 0, 0, 0, 0, 0, 0, 1, 2];
        let tenant = decode::<TenantRow>(&row).unwrap().into_noun().unwrap();
        let quota = Quota { backlog_max: Some(5), ..Quota::default() };
        assert_eq!((tenant.no.0, tenant.quota, tenant.updated_at.0), (7, quota, 2));
    }

    #[test]
    fn a_retention_comes_back() {
        for kept in [Retention::Forever, Retention::For(Duration::from_millis(3_600_001))] {
            assert_eq!(RetentionRow::from(kept).into_noun(), kept);
        }
    }
}
