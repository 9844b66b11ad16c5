use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::AsyncWrite;

/// Bytes that are copied rather than told of piece by piece.
const COPIED_MAX: usize = 2048;

/// Writes the pieces of a small message as one: for the kernel, taking in a list of pieces costs
/// more than copying so few bytes does.
pub fn poll_write_joined<S: AsyncWrite + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    pieces: &[io::IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let stream = Pin::new(stream);
    let len = pieces.iter().map(|it| it.len()).sum();
    if len > COPIED_MAX || pieces.len() < 2 {
        return stream.poll_write_vectored(cx, pieces);
    }
    let mut joined = [0; COPIED_MAX];
    let mut left = &mut joined[..len];
    for piece in pieces {
        let (place, rest) = left.split_at_mut(piece.len());
        place.copy_from_slice(piece);
        left = rest;
    }
    stream.poll_write(cx, &joined[..len])
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, io::IoSlice};

    use super::*;

    /// Takes at most so many bytes at once, and notes how they came.
    struct Kernel {
        room: usize,
        writes: Vec<(&'static str, usize)>,
        taken: Vec<u8>,
    }

    impl AsyncWrite for Kernel {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let taken = bytes.len().min(self.room);
            self.writes.push(("one", taken));
            self.taken.extend(&bytes[..taken]);
            Poll::Ready(Ok(taken))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            pieces: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let whole: Vec<u8> = pieces.iter().flat_map(|it| it.iter().copied()).collect();
            let taken = whole.len().min(self.room);
            self.writes.push(("pieces", taken));
            self.taken.extend(&whole[..taken]);
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn pieces_of_a_small_message_are_written_as_one() {
        let (head, body) = ([1; 300], [2; COPIED_MAX - 300]);
        let larger = [body.as_slice(), &[3]].concat();
        for (room, pieces, expected) in [
            (usize::MAX, vec![&head[..], &body], ("one", COPIED_MAX)),
            (400, vec![&head, &body], ("one", 400)),
            (usize::MAX, vec![&head, &larger], ("pieces", COPIED_MAX + 1)),
            (usize::MAX, vec![&body], ("pieces", body.len())),
            (usize::MAX, vec![&head, &[], &[4]], ("one", 301)),
        ] {
            let mut kernel = Kernel { room, writes: Vec::new(), taken: Vec::new() };
            let slices: Vec<_> = pieces.iter().map(|it| IoSlice::new(it)).collect();
            let taken = poll_fn(|cx| poll_write_joined(&mut kernel, cx, &slices)).await.unwrap();
            assert_eq!((taken, &kernel.writes[..]), (expected.1, &[expected][..]));
            assert_eq!(kernel.taken, pieces.concat()[..taken]);
        }
    }
}
