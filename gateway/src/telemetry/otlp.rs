//! Spans on their way to a collector by OTLP over HTTP. The settings are OpenTelemetry's own
//! environment variables: `OTEL_EXPORTER_OTLP_ENDPOINT` or `…_TRACES_ENDPOINT` switches it on;
//! headers, protocol, sampler, batches and resource are read by its SDK.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tokio::{runtime::Handle, time::Instant};

use crate::telemetry::spans;

/// The collector is asked for no longer when the gateway ends.
const FLUSH_PATIENCE: Duration = Duration::from_secs(5);
/// A collector that takes nothing is told of so often.
const TELL_EVERY: Duration = Duration::from_secs(60);
const PROTOCOLS: [&str; 2] = ["http/protobuf", "http/json"];
const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

/// Spans are sent as long as this lives.
pub struct Exporting(SdkTracerProvider);

impl Exporting {
    /// Begins, if the environment names a collector.
    ///
    /// # Errors
    /// What is wrong with the environment.
    pub fn start() -> Result<Option<Self>, String> {
        let set = |name: &str| std::env::var(name).is_ok_and(|it| !it.is_empty());
        let named = set("OTEL_EXPORTER_OTLP_ENDPOINT") || set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        let off =
            std::env::var("OTEL_SDK_DISABLED").is_ok_and(|it| it.eq_ignore_ascii_case("true"));
        if !named || off {
            return Ok(None);
        }
        check_environment(|name| std::env::var(name).ok().filter(|it| !it.is_empty()))?;
        let http = reqwest::Client::builder().build().map_err(|it| it.to_string())?;
        let client = Client { http, runtime: Handle::current(), losses: Arc::default() };
        let exporter = SpanExporter::builder().with_http().with_http_client(client).build();
        let exporter = exporter.map_err(|it| it.to_string())?;
        let mut resource = Resource::builder();
        if !set("OTEL_SERVICE_NAME") {
            resource = resource.with_service_name("hookgate");
        }
        let attributes = std::env::var("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        if !attributes.contains("service.version=") {
            let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
            resource = resource.with_attribute(version);
        }
        let provider = SdkTracerProvider::builder();
        let provider = provider.with_resource(resource.build()).with_batch_exporter(exporter);
        let provider = provider.build();
        spans::begin(provider.tracer("hookgate"));
        Ok(Some(Self(provider)))
    }

    /// Sends what is left, and ends.
    pub async fn stop(self) {
        let ended = move || self.0.shutdown_with_timeout(FLUSH_PATIENCE);
        // It waits for the collector, on a thread that may wait.
        if let Ok(Err(error)) = tokio::task::spawn_blocking(ended).await {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

/// The SDK sends from a thread of its own, which has no runtime: this brings it to ours.
#[derive(Debug)]
struct Client {
    http: reqwest::Client,
    runtime: Handle,
    losses: Arc<Mutex<Losses>>,
}

/// Exports that came to nothing, as far as they have not been told of.
#[derive(Debug, Default)]
struct Losses {
    count: u64,
    told: Option<Instant>,
}

impl Losses {
    /// One more; how many there were since that was last told, if it is to be told now.
    fn add(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        if self.told.is_some_and(|it| now - it < TELL_EVERY) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

/// Why a request failed, without its address, which may hold a secret.
fn deepest(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), deepest)
}

/// Refuses what would be taken in silence and not followed: OTLP is spoken over HTTP alone, and
/// the SDK takes its default for a sampler that it does not know.
fn check_environment(read: impl Fn(&str) -> Option<String>) -> Result<(), String> {
    for name in ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] {
        let Some(protocol) = read(name) else { continue };
        if !PROTOCOLS.contains(&protocol.as_str()) {
            return Err(format!("{name} is {protocol}; use one of {}", PROTOCOLS.join(", ")));
        }
    }
    match read("OTEL_TRACES_SAMPLER") {
        Some(sampler) if !SAMPLERS.contains(&sampler.as_str()) => {
            Err(format!("OTEL_TRACES_SAMPLER is {sampler}; use one of {}", SAMPLERS.join(", ")))
        }
        _ => Ok(()),
    }
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let http = self.http.clone();
        let sent = self.runtime.spawn(async move {
            let (parts, body) = request.into_parts();
            let url = parts.uri.to_string();
            let answer = http.request(parts.method, url).headers(parts.headers).body(body);
            let answer = answer.send().await?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            let mut response = Response::new(answer.bytes().await?);
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            Ok::<_, reqwest::Error>(response)
        });
        let response = sent.await?;
        let error = match &response {
            Ok(it) if it.status().is_success() => None,
            Ok(it) => Some(format!("it answered {}", it.status())),
            Err(error) => Some(deepest(error)),
        };
        let losses = || self.losses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = error
            && let Some(exports) = losses().add(Instant::now())
        {
            tracing::warn!(error, exports, "spans are lost: the collector does not take them");
        }
        Ok(response?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_spoken_is_refused_by_name() {
        let with = |name: &'static str, value: &'static str| {
            check_environment(move |it| (it == name).then(|| value.to_owned()))
        };
        let refused = with("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc").unwrap_err();
        assert!(refused.contains("grpc") && refused.contains("http/protobuf"), "{refused}");
        assert!(with("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc").is_err());
        assert!(with("OTEL_TRACES_SAMPLER", "nonsense").unwrap_err().contains("always_on"));
        assert_eq!(with("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), Ok(()));
        assert_eq!(with("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"), Ok(()));
        assert_eq!(with("PATH", "x"), Ok(()));
    }

    #[test]
    fn losses_are_told_at_once_and_then_each_minute_with_their_number() {
        let (mut losses, start) = (Losses::default(), Instant::now());
        assert_eq!(losses.add(start), Some(1));
        for second in 1..60 {
            assert_eq!(losses.add(start + Duration::from_secs(second)), None);
        }
        assert_eq!(losses.add(start + Duration::from_secs(60)), Some(60));
    }
}
