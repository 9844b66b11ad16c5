use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::app::framing::Framing;
use crate::world::poll_write_joined;

/// A client's connection that knows what came since something was last sent.
pub(super) struct Watched {
    pub(super) stream: TcpStream,
    /// Whether anything came: at the end of a wait for a request's head, one that was begun.
    pub(super) begun: bool,
    framing: Framing,
    framed_twice: Arc<AtomicBool>,
}

impl Watched {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, begun: false, framing: Framing::default(), framed_twice: Arc::default() }
    }

    /// Whether the last head said in two ways how long its body is. The HTTP library takes the one
    /// way and does not tell of the other. Of requests that are sent before the answer to the
    /// one before, only the first is looked at.
    pub(super) fn framed_twice(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.framed_twice)
    }

    fn came(&mut self, bytes: &[u8]) {
        self.begun |= !bytes.is_empty();
        if self.framing.see(bytes) {
            self.framed_twice.store(self.framing.is_told_twice(), Ordering::Relaxed);
        }
    }

    fn is_sent(&mut self) {
        self.begun = false;
        self.framing = Framing::default();
        self.framed_twice.store(false, Ordering::Relaxed);
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.came(&buf.filled()[before..]);
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.is_sent();
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.is_sent();
        poll_write_joined(&mut self.stream, cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
