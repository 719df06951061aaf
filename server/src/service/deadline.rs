//! When a request arrived, and when its caller stops waiting.
//!
//! tonic's own timer for `grpc-timeout` does not bound streams and reads as CANCELLED. This layer's timer starts
//! with the request's headers, before tonic's, and answers DEADLINE_EXCEEDED.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use tokio::time::Instant;
use tonic::body::Body;
use tower::{Layer, Service};

use super::Trace;
use crate::failure::Failure;
use crate::status::status;

/// When a request arrived, its deadline and its trace.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// When its headers arrived.
    pub at: Instant,
    /// When its caller stops waiting.
    pub deadline: Option<Instant>,
    /// The trace it belongs to.
    pub trace: Option<Trace>,
}

impl Arrival {
    /// A request that has just arrived with these headers.
    pub fn new(headers: &HeaderMap) -> Self {
        let at = Instant::now();
        let timeout = headers.get("grpc-timeout").and_then(|value| parse(value.to_str().ok()?));
        let deadline = timeout.and_then(|timeout| at.checked_add(timeout));
        Self { at, deadline, trace: Trace::of(headers) }
    }

    /// What the layer found out about a request; without the layer: now, without a deadline.
    pub fn of<T>(request: &tonic::Request<T>) -> Self {
        let found = request.extensions().get::<Self>().copied();
        found.unwrap_or_else(|| Self { at: Instant::now(), deadline: None, trace: None })
    }

    /// Waits for the deadline; for ever if there is none.
    pub async fn passed(self) {
        match self.deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }
}

/// `grpc-timeout`: at most 8 digits and a unit.
fn parse(value: &str) -> Option<Duration> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// Notes arrivals, and answers requests whose deadline passes before they are answered.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Deadline(inner)
    }
}

/// The service of [`DeadlineLayer`].
#[derive(Debug, Clone)]
pub struct Deadline<S>(S);

impl<S> Service<Request<Body>> for Deadline<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let arrival = Arrival::new(request.headers());
        request.extensions_mut().insert(arrival);
        let response = self.0.call(request);
        Box::pin(async move {
            tokio::select! {
                biased;
                response = response => response,
                () = arrival.passed() => Ok(status(&Failure::DeadlineExceeded, None).into_http()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_specification_says() {
        for (value, timeout) in [
            ("2H", Some(Duration::from_secs(7200))),
            ("3M", Some(Duration::from_secs(180))),
            ("4S", Some(Duration::from_secs(4))),
            ("99999999m", Some(Duration::from_millis(99_999_999))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("", None),
            ("S", None),
            ("1", None),
            ("-1S", None),
            ("+1S", None),
            ("123456789S", None),
            ("1é", None),
        ] {
            assert_eq!(parse(value), timeout, "{value}");
        }
    }

    async fn answer(inner: impl Future<Output = ()> + Send + 'static, timeout: &str) -> tonic::Code {
        let mut inner = Some(inner);
        let mut service = DeadlineLayer.layer(tower::service_fn(move |_: Request<Body>| {
            let inner = inner.take().unwrap();
            async move {
                inner.await;
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        }));
        let request = Request::builder().header("grpc-timeout", timeout).body(Body::empty()).unwrap();
        let response = service.call(request).await.unwrap();
        let status = tonic::Status::from_header_map(response.headers());
        status.map_or(tonic::Code::Ok, |status| status.code())
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_passes_is_called_by_its_name() {
        let started = Instant::now();
        assert_eq!(answer(std::future::pending(), "3S").await, tonic::Code::DeadlineExceeded);
        assert!(started.elapsed() < Duration::from_secs(4));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_in_time_is_left_alone() {
        assert_eq!(answer(tokio::time::sleep(Duration::from_secs(2)), "3S").await, tonic::Code::Ok);
    }
}
