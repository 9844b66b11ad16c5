//! What an attempt sends: one request, or several in order, each signed and its answer understood.

use url::{Position, Url};

use crate::dispatch::Dispatcher;
use crate::dispatch::evidence::{Finished, masked_headers};
use crate::dispatch::plugin_chain::{Chain, Made, Rewritten};
use crate::dispatch::request;
use crate::domain::{
    DeadReason, Endpoint, Event, KeptHeader, OnError, Parts, Scheme, Secret, Timestamp,
    TraceContext, Verdict,
};
use crate::plugins::{Classified, Fault, FaultKind, RequestIn, ResponseIn, Signed};
use crate::storage::Lease;
use crate::world::Request;

/// An attempt about to send.
pub(super) struct Sending<'a> {
    pub(super) work: &'a Dispatcher,
    pub(super) lease: &'a Lease,
    pub(super) endpoint: &'a Endpoint,
    pub(super) chain: &'a Chain<'a>,
    /// By the machine's clock, which receivers compare with their own.
    pub(super) signed_at: Timestamp,
    /// What the endpoint is told of the trace.
    pub(super) trace: Option<TraceContext>,
}

impl Sending<'_> {
    /// Sends what is not delivered yet, in order, up to the first that is not taken: the attempt
    /// is as good as its worst request.
    pub(super) async fn send(&self, made: &Made) -> Finished {
        match made.several {
            false => self.send_one(&self.lease.event, &made.parts[0]).await,
            true => Box::pin(self.send_several(made)).await,
        }
    }

    async fn send_several(&self, made: &Made) -> Finished {
        let of = made.parts.len() as u32;
        // Another version of the plugin may make fewer of it than are delivered already.
        let first = self.lease.parts_delivered.min(of - 1);
        let mut last = None;
        for (place, part) in made.parts.iter().enumerate().skip(first as usize) {
            let id = self.lease.event.id.part(place);
            let event = Event { id, ..Event::clone(&self.lease.event) };
            let finished = self.send_one(&event, part).await;
            if finished.name != "delivered" {
                let parts = Some(Parts { delivered: place as u32, of });
                let error = finished.error.as_deref().unwrap_or(finished.name);
                let error = Some(format!("request {} of {of}: {error}", place + 1));
                return Finished { error, parts, ..finished };
            }
            last = Some(finished);
        }
        let parts = Some(Parts { delivered: of, of });
        Finished { parts, ..last.expect("the last request is always sent") }
    }

    async fn send_one(&self, event: &Event, part: &Rewritten) -> Finished {
        let mut request = match self.request(event, part) {
            Ok(request) => request,
            Err(error) => return Finished::failed("internal", error),
        };
        let signed = match self.sign(event, &request).await {
            Ok(signed) => signed,
            Err(finished) => return finished,
        };
        if let Err(error) = add(&mut request, &signed) {
            return Finished::failed("internal", error);
        }
        let sent = self.work.transport.send(request).await;
        let mut finished = Finished::answered(sent, || self.work.clock.wall());
        if let Some(status) = finished.status.filter(|_| !self.chain.is_empty()) {
            finished = Box::pin(self.understand(event, status, finished)).await;
        }
        // What went wrong should show what was sent; of what went well it is not worth its bytes.
        // It is made again rather than copied each time.
        if finished.name != "delivered"
            && let Ok(mut request) = self.request(event, part)
            && add(&mut request, &signed).is_ok()
        {
            finished.request_headers = masked_headers(&request.headers);
        }
        finished
    }

    fn request(&self, event: &Event, part: &Rewritten) -> Result<Request, String> {
        let at = (self.work.shard.number(), self.signed_at);
        let mut request = request::build(self.endpoint, event, part, at)?;
        request::trace(&mut request, self.trace);
        request::mark(&mut request, self.lease.trigger);
        Ok(request)
    }

    /// The headers of the endpoint's plugins that sign.
    async fn sign(&self, event: &Event, request: &Request) -> Result<Signed, Finished> {
        let signed = match self.chain.is_empty() {
            true => Vec::new(),
            false => Box::pin(self.signed_by_plugins(event, request)).await?,
        };
        if signed.is_empty() && self.endpoint.signature.scheme == Scheme::Plugin {
            let detail = "no plugin of the endpoint signed it".to_owned();
            let fault = Fault { kind: FaultKind::Failed, detail };
            return Err(Finished::plugin_failed(fault, OnError::Retry));
        }
        Ok(signed)
    }

    async fn signed_by_plugins(
        &self,
        event: &Event,
        request: &Request,
    ) -> Result<Signed, Finished> {
        let path = Url::parse(&request.url)
            .map(|it| it[Position::BeforePath..Position::AfterQuery].to_owned());
        let text = |it: &http::HeaderValue| String::from_utf8_lossy(it.as_bytes()).into_owned();
        let headers = request.headers.iter().map(|(name, it)| (name.to_string(), text(it)));
        let secrets = self.endpoint.secrets_at(self.signed_at);
        let question = RequestIn {
            id: event.id.to_string(),
            timestamp: self.signed_at.as_secs(),
            path: path.unwrap_or_default(),
            headers: headers.collect(),
            body: request.body.clone(),
            keys: secrets.filter_map(key).map(<[u8]>::to_vec).collect(),
        };
        let of = (self.endpoint, &*self.lease.event);
        let signed = self.chain.sign(self.work, of, &question).await;
        signed.map_err(|(fault, on_error)| Finished::plugin_failed(fault, on_error))
    }

    /// What an answer means, if a plugin knows better than its status.
    async fn understand(&self, event: &Event, status: u16, finished: Finished) -> Finished {
        let lower = |(name, value): &KeptHeader| (name.to_ascii_lowercase(), value.clone());
        let question = ResponseIn {
            event_id: event.id.to_string(),
            timestamp_ms: event.timestamp.0,
            status,
            headers: finished.headers.iter().map(lower).collect(),
            body: finished.body.clone(),
        };
        let of = (self.endpoint, &*self.lease.event);
        match self.chain.classify(self.work, of, &question).await {
            Classified::Undecided => finished,
            Classified::Success => {
                let verdict = Some(Verdict::Delivered);
                Finished { name: "delivered", error: None, verdict, ..finished }
            }
            Classified::Failure(reason) => {
                let error = Some(reason);
                Finished { name: "response_refused", error, refused: true, ..finished }
            }
            Classified::Final(reason) => {
                let verdict = Some(Verdict::Dead(DeadReason::Refused));
                Finished { name: "response_refused", error: Some(reason), verdict, ..finished }
            }
        }
    }
}

/// What an HMAC is computed with: the bytes of a Standard Webhooks secret, or the text of another.
fn key(secret: &Secret) -> Option<&[u8]> {
    secret.standard_bytes().or_else(|| secret.text_bytes())
}

fn add(request: &mut Request, headers: &Signed) -> Result<(), String> {
    for (name, value) in headers {
        request.headers.insert(request::parse_name(name)?, request::parse_value(value)?);
    }
    Ok(())
}
