use std::io;

use axum::{
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse, Response},
};
use http::header;
use tokio::sync::mpsc;

use crate::api::caller::Need;
use crate::api::gateway::Gateway;
use crate::api::route::{Route, post};

/// Chunks that wait for the reader; then the store is read no further.
const CHUNKS_MAX: usize = 4;
const MEDIA_TYPE: &str = "application/vnd.hookgate.backup";

pub(super) fn routes() -> Vec<Route> {
    let said = ("backUp", "Streams the whole store as it is at this instant.");
    vec![
        post("/v1/system/backup", Need::Operator, backup, said).gives_as(200, MEDIA_TYPE, "Backup"),
    ]
}

/// The last bytes are a checksum: without them the backup is not whole.
async fn backup(State(gateway): State<Gateway>) -> Response {
    if let Err(error) = gateway.store.shards()[0].tell_done("backup", None, None).await {
        // What has failed can be saved all the same.
        tracing::warn!(%error, "the audit log cannot tell who takes this backup");
    }
    let (chunks, stream) = mpsc::channel(CHUNKS_MAX);
    let store = gateway.store.clone();
    // Reading blocks. It ends with the stream, whose reader owns the other half.
    drop(tokio::task::spawn_blocking(move || {
        let mut chunks = Chunks(chunks);
        match store.backup(&mut chunks) {
            Ok(rows) => tracing::info!(rows, "a backup was taken"),
            Err(error) => {
                tracing::error!(%error, "a backup ended early");
                // The reader may be what is gone.
                let _ = chunks.0.blocking_send(Err(io::Error::other("the backup ended early")));
            }
        }
    }));
    let stream = futures_util::stream::unfold(stream, async |mut it| Some((it.recv().await?, it)));
    let kind = [(header::CONTENT_TYPE, MEDIA_TYPE)];
    (kind, Body::from_stream(stream)).into_response()
}

/// Hands what is written to the stream.
struct Chunks(mpsc::Sender<io::Result<Bytes>>);

impl io::Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
