//! Runs a plugin natively, for its unit tests. `hookgate plugin test` runs the component itself,
//! in the gateway's sandbox.

#[cfg(not(target_family = "wasm"))]
use crate::Keys;
use crate::{
    Classified, Config, Event, Filtered, Incoming, Ingested, Plugin, Request, Response, Transformed,
};

/// An event with this data.
pub fn event(event_type: &str, data: &str) -> Event {
    Event {
        id: "evt_test".to_owned(),
        event_type: event_type.to_owned(),
        timestamp_ms: 0,
        content_type: "application/json".to_owned(),
        metadata: Vec::new(),
        ordering_key: None,
        payload: data.as_bytes().to_vec(),
    }
}

/// An event with this data that has just arrived.
pub fn incoming(event_type: &str, data: &str) -> Incoming {
    Incoming {
        id: None,
        event_type: event_type.to_owned(),
        timestamp_ms: 0,
        metadata: Vec::new(),
        ordering_key: None,
        payload: data.as_bytes().to_vec(),
    }
}

/// What an endpoint answered.
pub fn response(status: u16, headers: &[(&str, &str)], body: &str) -> Response {
    Response { status, headers: owned(headers), body: body.as_bytes().to_vec() }
}

/// A request that waits for its signature.
pub fn request(id: &str, timestamp: u64, path: &str, body: &str) -> Request {
    let (id, path, body) = (id.to_owned(), path.to_owned(), body.as_bytes().to_vec());
    Request { id, timestamp, path, headers: Vec::new(), body }
}

/// Configures a plugin.
///
/// # Errors
/// What it refuses.
pub fn configure<T: Plugin>(config: &[(&str, &str)]) -> Result<T, String> {
    T::configure(&Config::new(owned(config)))
}

/// Configures a plugin and asks its filter.
///
/// # Errors
/// What the plugin says.
pub fn filter<T: Plugin>(config: &[(&str, &str)], event: &Event) -> Result<Filtered, String> {
    configure::<T>(config)?.filter(event)
}

/// Configures a plugin and asks its transform.
///
/// # Errors
/// What the plugin says.
pub fn transform<T: Plugin>(config: &[(&str, &str)], event: &Event) -> Result<Transformed, String> {
    configure::<T>(config)?.transform(event)
}

/// Configures a plugin and asks its ingest hook.
///
/// # Errors
/// What the plugin says.
pub fn ingest<T: Plugin>(config: &[(&str, &str)], event: &Incoming) -> Result<Ingested, String> {
    configure::<T>(config)?.ingest(event)
}

/// Configures a plugin and asks it what an answer means.
///
/// # Errors
/// What the plugin says.
pub fn classify<T: Plugin>(
    config: &[(&str, &str)],
    response: &Response,
) -> Result<Classified, String> {
    configure::<T>(config)?.classify(response)
}

/// Configures a plugin and has it sign with these secrets, newest first.
///
/// # Errors
/// What the plugin says.
#[cfg(not(target_family = "wasm"))]
pub fn sign<T: Plugin>(
    config: &[(&str, &str)],
    request: &Request,
    secrets: &[&[u8]],
) -> Result<Vec<(String, String)>, String> {
    let keys = Keys { secrets: secrets.iter().map(|it| it.to_vec()).collect() };
    configure::<T>(config)?.sign(request, &keys)
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
