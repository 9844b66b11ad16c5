//! Spans on their way to a collector by OTLP over HTTP. The settings are OpenTelemetry's own
//! environment variables: `OTEL_EXPORTER_OTLP_ENDPOINT` or `…_TRACES_ENDPOINT` switches it on;
//! headers, protocol, sampler, batches and resource are read by its SDK.

use std::time::Duration;

use bytes::Bytes;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tokio::runtime::Handle;

use crate::telemetry::spans;

/// The collector is asked for no longer when the gateway ends.
const FLUSH_PATIENCE: Duration = Duration::from_secs(5);

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
        let http = reqwest::Client::builder().build().map_err(|it| it.to_string())?;
        let client = Client { http, runtime: Handle::current() };
        let exporter = SpanExporter::builder().with_http().with_http_client(client).build();
        let exporter = exporter.map_err(|it| it.to_string())?;
        let mut resource = Resource::builder();
        if !set("OTEL_SERVICE_NAME") {
            resource = resource.with_service_name("hookgate");
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
        Ok(sent.await??)
    }
}
