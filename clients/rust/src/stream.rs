//! The events of a call under way.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use smartedit_proto::v1::{CompareResponse, EditStreamResponse};
use tokio::time::{Instant, Sleep};
use tokio_stream::Stream;
use tonic::{Code, Streaming};

use crate::{CompareEntry, CompareEvent, Edited, Error, Event, Result};

/// What a stream carries.
pub(crate) trait Message: Sized {
    /// As it travels.
    type Wire;

    /// `None` for an event of a newer server, which this client does not know.
    fn from_wire(wire: Self::Wire) -> Result<Option<Self>>;

    /// Whether nothing comes after it.
    fn is_last(&self) -> bool;
}

impl Message for Event {
    type Wire = EditStreamResponse;

    fn from_wire(wire: Self::Wire) -> Result<Option<Self>> {
        Self::from_proto(wire)
    }

    fn is_last(&self) -> bool {
        matches!(self, Self::Finished(_))
    }
}

impl Message for CompareEvent {
    type Wire = CompareResponse;

    fn from_wire(wire: Self::Wire) -> Result<Option<Self>> {
        Self::from_proto(wire)
    }

    fn is_last(&self) -> bool {
        false
    }
}

/// Messages until the last one, the end or the deadline.
struct Messages<M: Message> {
    first: Option<M>,
    rest: Streaming<M::Wire>,
    deadline: Option<Pin<Box<Sleep>>>,
    over: bool,
}

impl<M: Message + Unpin> Messages<M> {
    /// Waits for the first message, so that a server that turns out unavailable can still be tried again.
    async fn open(rest: Streaming<M::Wire>, deadline: Option<Instant>) -> Result<Self> {
        let deadline = deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
        let mut messages = Self { first: None, rest, deadline, over: false };
        messages.first = messages.next().await.transpose()?;
        Ok(messages)
    }

    async fn next(&mut self) -> Option<Result<M>> {
        std::future::poll_fn(|cx| self.poll_message(cx)).await
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<M>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        if self.over {
            return Poll::Ready(None);
        }
        let passed = self.deadline.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready());
        let item = match self.poll_wire(cx) {
            Poll::Pending if passed => Some(Err(Error::deadline())),
            Poll::Pending => return Poll::Pending,
            // tonic's own timer reads as CANCELLED.
            Poll::Ready(Some(Err(error))) if passed && error.code() == Some(Code::Cancelled) => {
                Some(Err(Error::deadline()))
            }
            Poll::Ready(item) => item,
        };
        self.over = !matches!(item, Some(Ok(ref message)) if !message.is_last());
        Poll::Ready(item)
    }

    fn poll_wire(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<M>>> {
        loop {
            let outcome = match ready!(Pin::new(&mut self.rest).poll_next(cx)) {
                None => None,
                Some(Err(status)) => Some(Err(status.into())),
                Some(Ok(wire)) => match M::from_wire(wire).transpose() {
                    None => continue,
                    known => known,
                },
            };
            return Poll::Ready(outcome);
        }
    }
}

/// The events of an edit, the last of which is [`Event::Finished`]. Dropping it cancels the edit.
pub struct EditStream(Messages<Event>);

impl EditStream {
    pub(crate) async fn open(rest: Streaming<EditStreamResponse>, deadline: Option<Instant>) -> Result<Self> {
        Messages::open(rest, deadline).await.map(Self)
    }

    /// The next event; `None` after the last one.
    pub async fn next(&mut self) -> Option<Result<Event>> {
        self.0.next().await
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
}

impl Stream for EditStream {
    type Item = Result<Event>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().0.poll_message(cx)
    }
}

/// The events of a comparison. Dropping it cancels the comparison.
pub struct CompareStream(Messages<CompareEvent>);

impl CompareStream {
    pub(crate) async fn open(rest: Streaming<CompareResponse>, deadline: Option<Instant>) -> Result<Self> {
        Messages::open(rest, deadline).await.map(Self)
    }

    /// The next event; `None` after the last one.
    pub async fn next(&mut self) -> Option<Result<CompareEvent>> {
        self.0.next().await
    }

    /// Reads to the end and returns what each deployment has made, in the order asked for.
    pub async fn finish(mut self) -> Result<Vec<CompareEntry>> {
        let mut entries = Vec::new();
        while let Some(event) = self.next().await {
            if let CompareEvent::Entry(entry) = event? {
                entries.push(*entry);
            }
        }
        Ok(entries)
    }
}

impl Stream for CompareStream {
    type Item = Result<CompareEvent>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().0.poll_message(cx)
    }
}
