//! The events of an edit.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use smartedit_proto::v1::EditStreamResponse;
use tokio::time::{Instant, Sleep};
use tokio_stream::Stream;
use tonic::{Code, Streaming};

use crate::{Edited, Error, Event, Result};

/// The events of an edit, the last of which is [`Event::Finished`]. Dropping it cancels the edit.
pub struct EditStream {
    first: Option<Event>,
    rest: Streaming<EditStreamResponse>,
    deadline: Option<Pin<Box<Sleep>>>,
    over: bool,
}

impl EditStream {
    /// Waits for the first event, so that a server that turns out unavailable can still be tried again.
    pub(crate) async fn open(rest: Streaming<EditStreamResponse>, deadline: Option<Instant>) -> Result<Self> {
        let deadline = deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
        let mut stream = Self { first: None, rest, deadline, over: false };
        stream.first = stream.next().await.transpose()?;
        Ok(stream)
    }

    /// The next event; `None` after the last one.
    pub async fn next(&mut self) -> Option<Result<Event>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Reads to the end and returns the result.
    pub async fn finish(mut self) -> Result<Edited> {
        while let Some(event) = self.next().await {
            if let Event::Finished(edited) = event? {
                return Ok(*edited);
            }
        }
        Err(Error::Incomplete("result"))
    }

    fn poll_wire(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Event>>> {
        loop {
            let outcome = match ready!(Pin::new(&mut self.rest).poll_next(cx)) {
                None => None,
                Some(Err(status)) => Some(Err(status.into())),
                Some(Ok(response)) => match Event::from_proto(response).transpose() {
                    None => continue,
                    known => known,
                },
            };
            return Poll::Ready(outcome);
        }
    }
}

impl Stream for EditStream {
    type Item = Result<Event>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        if this.over {
            return Poll::Ready(None);
        }
        let passed = this.deadline.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready());
        let item = match this.poll_wire(cx) {
            Poll::Pending if passed => Some(Err(Error::deadline())),
            Poll::Pending => return Poll::Pending,
            // tonic's own timer reads as CANCELLED.
            Poll::Ready(Some(Err(error))) if passed && error.code() == Some(Code::Cancelled) => {
                Some(Err(Error::deadline()))
            }
            Poll::Ready(item) => item,
        };
        this.over = !matches!(item, Some(Ok(ref event)) if !matches!(event, Event::Finished(_)));
        Poll::Ready(item)
    }
}
