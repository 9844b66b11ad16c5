//! What the operator grants a tenant, both ways.

use std::time::Duration;

use serde_json::{Value, json};

use crate::api::fields::Fields;
use crate::api::wire::{duration, parse_duration};
use crate::domain::{PluginQuota, Quota, Retention};
use crate::plugins::Config;

const DEADLINE_MAX: Duration = Duration::from_secs(10);
const CPU_MAX: Duration = Duration::from_secs(256);
const BYTES_MAX: u32 = 64 * 1024 * 1024;
/// Wasm memory comes in pages of 64 KiB; less is none.
const WASM_PAGE_BYTES: u32 = 64 * 1024;
const LINES_MAX: u32 = 100_000;
const RETENTION: &str = "a duration of at least \"1h\", or \"forever\"";

/// Reads `quota`; `None` when nothing is said of it. `config` is the host's own: an instance
/// cannot have more memory than those of its pool.
pub(super) fn read(fields: &mut Fields, config: &Config) -> Option<Quota> {
    let value = fields.take("quota")?;
    let mut quota = match Fields::of(value, "/quota") {
        Ok(quota) => quota,
        Err(errors) => {
            fields.refuse_all(errors);
            return None;
        }
    };
    let plugins = match quota.take("plugins").map(|it| Fields::of(it, "/quota/plugins")) {
        Some(Ok(mut plugins)) => {
            let read = read_plugins(&mut plugins, config);
            plugins.finish().map_err(|errors| fields.refuse_all(errors)).ok();
            read
        }
        Some(Err(errors)) => {
            fields.refuse_all(errors);
            PluginQuota::default()
        }
        None => PluginQuota::default(),
    };
    let read = Quota {
        events_per_second: quota.number("events_per_second", 0.001, 10_000_000.0),
        burst: quota.whole("burst", 1, 10_000_000),
        backlog_max: quota.whole("backlog_max", 1, u32::MAX).map(u64::from),
        endpoints_max: quota.whole("endpoints_max", 0, 1_000_000),
        retention: quota.parsed("retention", RETENTION, Retention::parse),
        plugins,
    };
    if read.burst.is_some() && read.events_per_second.is_none() && !quota.refused() {
        quota.refuse("burst", "goes with `events_per_second`, which is not given");
    }
    quota.finish().map_err(|errors| fields.refuse_all(errors)).ok();
    Some(read)
}

fn read_plugins(fields: &mut Fields, config: &Config) -> PluginQuota {
    let mut span = |name: &str, max: Duration| {
        let form = format!("a duration from \"1ms\" to \"{}\"", duration(max));
        let fits = |it: &Duration| (Duration::from_millis(1)..=max).contains(it);
        fields.parsed(name, &form, |it| parse_duration(it).filter(fits))
    };
    let (deadline, cpu) = (span("deadline", DEADLINE_MAX), span("cpu_per_second", CPU_MAX));
    let memory_max = u32::try_from(config.memory_bytes_cap).unwrap_or(u32::MAX);
    // More needs a greater `memory_cap_mib` of the gateway.
    let memory = fields.whole("memory_bytes", WASM_PAGE_BYTES, memory_max).map(u64::from);
    let mut whole = |name: &str, max: u32| fields.whole(name, 1, max).map(u64::from);
    PluginQuota {
        deadline,
        memory_bytes_max: memory,
        output_bytes_max: whole("output_bytes", BYTES_MAX),
        log_lines_max: whole("log_lines", LINES_MAX),
        log_bytes_max: whole("log_bytes", BYTES_MAX),
        cpu_per_second: cpu,
    }
}

/// The quota with what was granted; the rest is what the gateway's settings say.
pub(super) fn render(it: &Quota) -> Value {
    let mut quota = json!({
        "events_per_second": it.events_per_second,
        "burst": it.burst,
        "backlog_max": it.backlog_max,
        "endpoints_max": it.endpoints_max,
        "retention": it.retention.map(|it| it.to_string()),
        "plugins": render_plugins(&it.plugins),
    });
    if let Some(members) = quota.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    quota
}

fn render_plugins(it: &PluginQuota) -> Value {
    let mut plugins = json!({
        "deadline": it.deadline.map(duration),
        "memory_bytes": it.memory_bytes_max,
        "output_bytes": it.output_bytes_max,
        "log_lines": it.log_lines_max,
        "log_bytes": it.log_bytes_max,
        "cpu_per_second": it.cpu_per_second.map(duration),
    });
    if let Some(members) = plugins.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    plugins
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Result<Option<Quota>, Vec<String>> {
        let mut fields = Fields::of(json!({ "quota": value }), "").unwrap();
        let config = Config::new("".into(), crate::plugins::Compiler::InProcess);
        let quota = super::read(&mut fields, &config);
        let errors = fields.finish().err().unwrap_or_default();
        let pointers: Vec<_> = errors.into_iter().map(|it| it.pointer).collect();
        if pointers.is_empty() { Ok(quota) } else { Err(pointers) }
    }

    #[test]
    fn a_quota_comes_back_as_it_was_given() {
        let given = json!({ "plugins": { "deadline": "20ms", "cpu_per_second": "100ms",
            "memory_bytes": 1_048_576, "output_bytes": 65_536, "log_lines": 5, "log_bytes": 512 } });
        let quota = read(given.clone()).unwrap().unwrap();
        assert_eq!(quota.plugins.cpu_per_second, Some(Duration::from_millis(100)));
        assert_eq!(render(&quota), given);
        assert_eq!(render(&read(json!({})).unwrap().unwrap()), json!({ "plugins": {} }));
        assert_eq!(read(Value::Null), Ok(None));
        let kept = read(json!({ "retention": "7d" })).unwrap().unwrap();
        assert_eq!(render(&kept), json!({ "retention": "168h", "plugins": {} }));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (given, pointer) in [
            (json!({ "plugin": {} }), "/quota/plugin"),
            (json!({ "plugins": { "deadlin": "1s" } }), "/quota/plugins/deadlin"),
            (json!({ "plugins": { "deadline": "11s" } }), "/quota/plugins/deadline"),
            (json!({ "plugins": { "memory_bytes": 129 << 20 } }), "/quota/plugins/memory_bytes"),
            (json!({ "plugins": { "memory_bytes": 1 } }), "/quota/plugins/memory_bytes"),
            (json!({ "plugins": 3 }), "/quota/plugins"),
            (json!({ "retention": "59m" }), "/quota/retention"),
            (json!({ "retention": 30 }), "/quota/retention"),
            (json!([]), "/quota"),
        ] {
            assert_eq!(read(given.clone()).unwrap_err(), [pointer], "{given}");
        }
    }
}
