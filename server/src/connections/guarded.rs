//! A connection whose other end must say something, and take what it is sent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tonic::transport::server::Connected;

use super::Place;
use crate::config::ConnectionsConfig;

/// A connection that is closed if nothing comes at its beginning, or what is sent is not taken.
pub(crate) struct Guarded<S> {
    io: S,
    /// Bytes that are still to come, and until when; `None` once they have.
    opening: Option<(usize, Pin<Box<Sleep>>)>,
    /// When what waits to be written must have been taken; `None` if nothing waits.
    stalled: Option<Pin<Box<Sleep>>>,
    patience: Duration,
    _place: Place,
}

impl<S> Guarded<S> {
    /// Waits for so many bytes at the beginning.
    pub(super) fn new(io: S, place: Place, opening: usize, config: &ConnectionsConfig) -> Self {
        let until = Box::pin(tokio::time::sleep(config.opening_timeout()));
        let patience = config.download_timeout();
        Self { io, opening: Some((opening, until)), stalled: None, patience, _place: place }
    }

    /// Fails what does not get on for too long.
    fn hurry<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.patience)));
        ready!(stalled.as_mut().poll(cx));
        late("nothing that is sent is taken")
    }
}

fn late<T>(reason: &'static str) -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, reason)))
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.io).poll_read(cx, buffer);
        let Some((missing, until)) = &mut self.opening else { return outcome };
        *missing = missing.saturating_sub(buffer.filled().len() - before);
        if *missing == 0 {
            self.opening = None;
        } else if outcome.is_pending() {
            ready!(until.as_mut().poll(cx));
            return late("nothing is asked");
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.hurry(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write_vectored(cx, parts);
        self.hurry(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_flush(cx);
        self.hurry(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_shutdown(cx);
        self.hurry(cx, outcome)
    }
}

impl<S: Connected> Connected for Guarded<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::Instant;

    use super::*;
    use crate::connections::Connections;
    use crate::metrics::Metrics;

    /// What HTTP/2 connections begin with.
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    const SECOND: Duration = Duration::from_secs(1);

    fn connections(max: usize) -> Connections {
        let config = ConnectionsConfig {
            max,
            opening_timeout_seconds: 5.0,
            download_timeout_seconds: 7.0,
            ..ConnectionsConfig::default()
        };
        Connections::grpc(&config, &Metrics::of_nothing())
    }

    /// Both ends of a connection.
    fn pair() -> (Guarded<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(64);
        (connections(1).guard(near).unwrap(), far)
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_not_waited_for() {
        let started = Instant::now();
        let (mut near, mut far) = pair();
        far.write_all(&PREFACE[1..]).await.unwrap();
        let error = near.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!((error.kind(), started.elapsed().as_secs()), (io::ErrorKind::TimedOut, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_said_something_may_be_silent() {
        let (mut near, mut far) = pair();
        far.write_all(PREFACE).await.unwrap();
        near.read_exact(&mut [0; PREFACE.len()]).await.unwrap();
        tokio::time::timeout(1000 * SECOND, near.read_u8()).await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_taken_is_not_kept() {
        let started = Instant::now();
        let (mut near, _far) = pair();
        let error = near.write_all(&[0; 65]).await.unwrap_err();
        assert_eq!((error.kind(), started.elapsed().as_secs()), (io::ErrorKind::TimedOut, 7));
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_a_little_at_a_time_is_waited_for() {
        let (mut near, mut far) = pair();
        let reading = async {
            for _ in 0..10 {
                tokio::time::sleep(6 * SECOND).await;
                far.read_exact(&mut [0; 10]).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(near.write_all(&[0; 100]), reading);
        written.unwrap();
    }

    #[tokio::test]
    async fn no_more_are_open_than_may_be() {
        let connections = connections(1);
        let first = connections.guard(());
        assert!(first.is_some() && connections.guard(()).is_none());
        assert_eq!((connections.metrics.open.get(), connections.metrics.refused.get()), (1, 1));
        drop(first);
        assert_eq!(connections.metrics.open.get(), 0);
        assert!(connections.guard(()).is_some());
    }
}
