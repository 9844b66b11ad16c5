use crate::{
    Classified, Config, Event, Filtered, Incoming, Ingested, Keys, Request, Response, Transformed,
};

/// A plugin: what it is configured with, and the hooks it answers. Implement those that
/// [`export!`](crate::export) names; the rest stay as they are.
///
/// Whatever a hook gives back as an error is treated as `on_error` says, where the plugin is used.
pub trait Plugin: Sized + Send + Sync + 'static {
    /// Takes what the plugin is configured with, once for each instance and before any hook.
    ///
    /// # Errors
    /// A sentence for whoever saves the endpoint.
    fn configure(config: &Config) -> Result<Self, String>;

    /// Decides whether an endpoint gets an event.
    ///
    /// # Errors
    /// A sentence that tells why it cannot decide.
    fn filter(&self, _event: &Event) -> Result<Filtered, String> {
        Ok(Filtered::Deliver)
    }

    /// Rewrites what an endpoint gets.
    ///
    /// # Errors
    /// A sentence that tells why it cannot be rewritten.
    fn transform(&self, _event: &Event) -> Result<Transformed, String> {
        Ok(Transformed::Unchanged)
    }

    /// Validates, enriches, renames or rejects an event, once, before it is stored.
    ///
    /// # Errors
    /// A sentence that tells why it cannot be judged.
    fn ingest(&self, _event: &Incoming) -> Result<Ingested, String> {
        Ok(Ingested::Accept)
    }

    /// Tells what an endpoint's answer means, where its status does not.
    ///
    /// # Errors
    /// A sentence that tells why it cannot be told.
    fn classify(&self, _response: &Response) -> Result<Classified, String> {
        Ok(Classified::Undecided)
    }

    /// Signs a request: the headers to add. The gateway computes the HMACs; the secrets never
    /// enter the plugin.
    ///
    /// # Errors
    /// A sentence that tells why it cannot be signed.
    fn sign(&self, _request: &Request, _keys: &Keys) -> Result<Vec<(String, String)>, String> {
        Ok(Vec::new())
    }
}
