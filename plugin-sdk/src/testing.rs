//! Runs a plugin natively, for its unit tests. `hookgate plugin test` runs the component itself,
//! in the gateway's sandbox.

use crate::{Config, Event, Filter, Filtered, Transform, Transformed};

/// An event with this data.
pub fn event(event_type: &str, data: &str) -> Event {
    Event {
        id: "evt_test".to_owned(),
        event_type: event_type.to_owned(),
        timestamp_ms: 0,
        content_type: "application/json".to_owned(),
        metadata: Vec::new(),
        payload: data.as_bytes().to_vec(),
    }
}

/// Configures a filter and asks it.
///
/// # Errors
/// What the filter says.
pub fn filter<T: Filter>(config: &[(&str, &str)], event: &Event) -> Result<Filtered, String> {
    T::configure(&owned(config))?.filter(event)
}

/// Configures a transform and asks it.
///
/// # Errors
/// What the transform says.
pub fn transform<T: Transform>(
    config: &[(&str, &str)],
    event: &Event,
) -> Result<Transformed, String> {
    T::configure(&owned(config))?.transform(event)
}

fn owned(config: &[(&str, &str)]) -> Config {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Config::new(config.iter().map(owned).collect())
}
