//! A request that must arrive in time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;

use crate::failure::Failure;
use crate::status::status;

/// The content of a request, which fails if it takes too long to arrive.
pub(super) struct Timely {
    body: Body,
    late: Pin<Box<Sleep>>,
    timeout: Duration,
}

impl Timely {
    pub(super) fn new(body: Body, timeout: Duration) -> Self {
        Self { body, late: Box::pin(tokio::time::sleep(timeout)), timeout }
    }
}

impl HttpBody for Timely {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_pending() && self.late.as_mut().poll(cx).is_ready() {
            let failure = Failure::UploadTooSlow { timeout: self.timeout };
            tracing::info!(outcome = failure.reason(), "a request does not arrive");
            return Poll::Ready(Some(Err(status(&failure, None))));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
