use serde::{Serialize, de::DeserializeOwned};

/// An event on its way to one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The event's id.
    pub id: String,
    /// What happened, for example `order.created`.
    pub event_type: String,
    /// When, in milliseconds since the Unix epoch.
    pub timestamp_ms: u64,
    /// What the payload is.
    pub content_type: String,
    /// Facts beside the data.
    pub metadata: Vec<(String, String)>,
    /// The event's data.
    pub payload: Vec<u8>,
}

impl Event {
    /// The data as a `T`.
    ///
    /// # Errors
    /// A sentence when it is no such JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_slice(&self.payload).map_err(|it| format!("the data: {it}"))
    }

    /// The producer's fact of this name.
    pub fn metadata(&self, name: &str) -> Option<&str> {
        self.metadata.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What shall be sent in place of the event's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The new data.
    pub payload: Vec<u8>,
    /// What it is.
    pub content_type: String,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// Appended to the path of the endpoint's URL.
    pub path_suffix: Option<String>,
}

impl Outgoing {
    /// New data as JSON.
    ///
    /// # Errors
    /// A sentence when `value` cannot be JSON.
    pub fn json(value: &impl Serialize) -> Result<Self, String> {
        let payload = serde_json::to_vec(value).map_err(|it| it.to_string())?;
        let content_type = "application/json".to_owned();
        Ok(Self { payload, content_type, headers: Vec::new(), path_suffix: None })
    }
}
