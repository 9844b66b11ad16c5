//! The least that has to be done for the same promise: accept, sync in groups, sign, send.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result};
use axum::{Router, body::Bytes, extract::State, routing::post};
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use serde_json::value::RawValue;
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    task::JoinSet,
};
use url::Url;

use crate::app::listen;
use crate::cli::bench::load::{Connection, connect};
use crate::cli::bench::sender::{host_of, signed};
use crate::domain::Secret;

/// Requests that wait to be written.
const WAITING_MAX: usize = 4096;
/// Connections to the receiver, and so requests at once.
const SENDERS: usize = 64;

type Appending = (Bytes, oneshot::Sender<()>);

#[derive(Clone)]
struct Accepting {
    writer: mpsc::Sender<Appending>,
    senders: Option<mpsc::UnboundedSender<Bytes>>,
}

/// Starts one that writes to a file in `folder` and sends to `sink`, if there is one; its URL.
pub(super) async fn start(
    folder: &Path,
    sink: Option<&str>,
    tasks: &mut JoinSet<()>,
) -> Result<String> {
    let (writer, appending) = mpsc::channel(WAITING_MAX);
    let file = File::create(folder.join("bound"))?;
    tasks.spawn_blocking(move || {
        // Nobody is answered any more when the disk fails.
        let _ = write(file, appending);
    });
    let senders = match sink {
        Some(sink) => Some(start_senders(&sink.parse()?, tasks).await?),
        None => None,
    };
    let accepting = Accepting { writer, senders };
    let router = Router::new().route("/events", post(accept)).with_state(accepting);
    let listener = listen(([127, 0, 0, 1], 0).into())?;
    let url = format!("http://{}/events", listener.local_addr()?);
    tasks.spawn(async move {
        // It ends with the process.
        let _ = axum::serve(listener, router).await;
    });
    Ok(url)
}

/// Takes whatever waits, writes it at once, syncs once, and answers all.
fn write(mut file: File, mut appending: mpsc::Receiver<Appending>) -> io::Result<()> {
    while let Some(first) = appending.blocking_recv() {
        let mut batch = vec![first];
        while let Ok(next) = appending.try_recv() {
            batch.push(next);
        }
        let bytes: Vec<u8> = batch.iter().flat_map(|(body, _)| body).copied().collect();
        file.write_all(&bytes)?;
        file.sync_data()?;
        for (_, done) in batch {
            // Whoever left does not wait.
            let _ = done.send(());
        }
    }
    Ok(())
}

async fn accept(State(it): State<Accepting>, body: Bytes) -> StatusCode {
    if serde_json::from_slice::<&RawValue>(&body).is_err() {
        return StatusCode::BAD_REQUEST;
    }
    let (done, synced) = oneshot::channel();
    let failed = it.writer.send((body.clone(), done)).await.is_err() || synced.await.is_err();
    if failed || it.senders.is_some_and(|it| it.send(body).is_err()) {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    StatusCode::ACCEPTED
}

async fn start_senders(
    sink: &Url,
    tasks: &mut JoinSet<()>,
) -> Result<mpsc::UnboundedSender<Bytes>> {
    let (sender, waiting) = mpsc::unbounded_channel();
    let waiting = Arc::new(Mutex::new(waiting));
    for _ in 0..SENDERS {
        let connection = connect(&host_of(sink), tasks).await?;
        let (waiting, sink) = (waiting.clone(), sink.clone());
        tasks.spawn(async move {
            // A receiver that leaves is missed by who counts there.
            let _ = send(&waiting, connection, &sink).await;
        });
    }
    Ok(sender)
}

async fn send(
    waiting: &Mutex<mpsc::UnboundedReceiver<Bytes>>,
    mut connection: Connection,
    sink: &Url,
) -> Result<()> {
    let secret = Secret::drawn([7; 32]);
    loop {
        let next = waiting.lock().await.recv().await;
        let body = next.context("nobody accepts any more")?;
        let mut request = http::Request::post(sink.path()).body(Full::new(body.clone()))?;
        *request.headers_mut() = signed(&secret, &body)?;
        request.headers_mut().insert("host", host_of(sink).parse()?);
        connection.ready().await?;
        let response = connection.send_request(request).await?;
        response.into_body().collect().await?;
    }
}
