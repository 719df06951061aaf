//! An answer that must be taken in time.
//!
//! A caller who grants HTTP/2 no window, or reads nothing over HTTP/1, keeps its answer where it is: here, in parts, not in
//! the buffers of the connection. What is not asked for in time is let go of, and with it all that the answer holds: the
//! picture, the edit's guard, the place among the edits that are received.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;

use crate::failure::Failure;
use crate::status::status;

/// Bytes handed to the connection at a time.
const PART: usize = 64 << 10;

/// The content of an answer, in parts, each of which must be asked for in time.
pub(super) struct Parts {
    state: Arc<Mutex<State>>,
    watch: AbortHandle,
}

struct State {
    /// `None` once it was let go of.
    body: Option<Body>,
    /// What is left of a frame.
    rest: Bytes,
    /// Since when the connection could have asked for more; `None` while it waits for the answer.
    given: Option<Instant>,
}

impl Parts {
    pub(super) fn new(body: Body, timeout: Duration) -> Self {
        let state = State { body: Some(body), rest: Bytes::new(), given: Some(Instant::now()) };
        let state = Arc::new(Mutex::new(state));
        let watch = tokio::spawn(watch(state.clone(), timeout)).abort_handle();
        Self { state, watch }
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.watch.abort();
        let_go(&self.state);
    }
}

/// Lets go of an answer that nobody asks for.
async fn watch(state: Arc<Mutex<State>>, timeout: Duration) {
    loop {
        let since = lock(&state).given.unwrap_or_else(Instant::now);
        if since.elapsed() >= timeout {
            break;
        }
        tokio::time::sleep_until(since + timeout).await;
    }
    tracing::info!(timeout_seconds = timeout.as_secs_f64(), "an answer is not read; letting go of it");
    let_go(&state);
}

/// Drops what the answer holds, which may take other locks.
fn let_go(state: &Mutex<State>) {
    let mut state = lock(state);
    let held = (state.body.take(), std::mem::take(&mut state.rest));
    drop(state);
    drop(held);
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.given = None;
        if self.rest.is_empty() {
            let Some(body) = &mut self.body else {
                return Poll::Ready(Some(Err(status(&Failure::NotRead, None))));
            };
            match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => self.rest = data,
                    Ok(data) => return self.give(Frame::data(data)),
                    Err(frame) => return self.give(frame),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let part = self.rest.split_to(self.rest.len().min(PART));
        self.give(Frame::data(part))
    }

    fn give(&mut self, frame: Frame<Bytes>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.given = Some(Instant::now());
        Poll::Ready(Some(Ok(frame)))
    }
}

impl HttpBody for Parts {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        lock(&self.state).poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        let state = lock(&self.state);
        state.rest.is_empty() && state.body.as_ref().is_some_and(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let state = lock(&self.state);
        let Some(body) = &state.body else { return SizeHint::default() };
        let (mut hint, rest) = (body.size_hint(), state.rest.len() as u64);
        if let Some(upper) = hint.upper().and_then(|upper| upper.checked_add(rest)) {
            hint.set_upper(upper);
        }
        hint
    }
}
