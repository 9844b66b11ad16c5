//! What the generated types can do beyond being data.

use serde::{Serialize, de::DeserializeOwned};

use crate::{Classified, Event, Filtered, Incoming, Ingested, Outgoing, Response, Transformed};

impl Event {
    /// The data as a `T`.
    ///
    /// # Errors
    /// A sentence when it is no such JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, String> {
        from_json(&self.payload, "data")
    }

    /// The producer's fact of this name.
    pub fn metadata(&self, name: &str) -> Option<&str> {
        find(&self.metadata, name)
    }
}

impl Incoming {
    /// The data as a `T`.
    ///
    /// # Errors
    /// A sentence when it is no such JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, String> {
        from_json(&self.payload, "data")
    }

    /// The producer's fact of this name.
    pub fn metadata(&self, name: &str) -> Option<&str> {
        find(&self.metadata, name)
    }

    /// What to change, with everything else as it came.
    pub fn replacement(&self) -> crate::Replacement {
        crate::Replacement {
            event_type: self.event_type.clone(),
            payload: self.payload.clone(),
            metadata: self.metadata.clone(),
            ordering_key: self.ordering_key.clone(),
        }
    }
}

impl Response {
    /// The body as a `T`. Only the first bytes of a long body are there.
    ///
    /// # Errors
    /// A sentence when it is no such JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, String> {
        from_json(&self.body, "body")
    }

    /// A header's value; the name is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
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

impl Filtered {
    /// Drops with a reason.
    pub fn drop(reason: impl Into<String>) -> Self {
        Self::Drop(reason.into())
    }
}

impl Transformed {
    /// Drops with a reason.
    pub fn drop(reason: impl Into<String>) -> Self {
        Self::Drop(reason.into())
    }
}

impl Ingested {
    /// Rejects with a reason for the producer.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self::Reject(reason.into())
    }
}

impl Classified {
    /// To be tried again, and why.
    pub fn failure(reason: impl Into<String>) -> Self {
        Self::Failure(reason.into())
    }

    /// Not to be tried again, and why.
    pub fn final_failure(reason: impl Into<String>) -> Self {
        Self::Final(reason.into())
    }
}

fn from_json<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|it| format!("the {what}: {it}"))
}

fn find<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}
