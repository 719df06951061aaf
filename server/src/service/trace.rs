//! The trace that a request belongs to, as W3C's `traceparent` tells.

use http::HeaderMap;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing::field::display;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The trace that a request belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    id: TraceId,
    /// The caller's span.
    parent: SpanId,
    flags: TraceFlags,
}

impl Trace {
    /// The trace that these headers name, if they do.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers));
        let span = context.span();
        let parent = span.span_context();
        parent.is_valid().then(|| Self {
            id: parent.trace_id(),
            parent: parent.span_id(),
            flags: parent.trace_flags(),
        })
    }

    fn context(self) -> Context {
        let Self { id, parent, flags } = self;
        let parent = SpanContext::new(id, parent, flags, true, TraceState::NONE);
        Context::new().with_remote_span_context(parent)
    }
}

/// Makes a span that nothing has entered yet a part of its caller's trace, or the first of a trace of its own where
/// traces are sent anywhere, and writes the trace's identifier into the span's field `trace_id`.
pub(super) fn join(span: &Span, trace: Option<Trace>) {
    let id = match trace {
        Some(trace) => {
            // It fails where traces are not sent anywhere: the identifier is all that is needed then.
            let _ = span.set_parent(trace.context());
            trace.id
        }
        None => span.context().span().span_context().trace_id(),
    };
    if id != TraceId::INVALID {
        span.record("trace_id", display(id));
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> Option<Trace> {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", value.parse().unwrap());
        Trace::of(&headers)
    }

    #[test]
    fn a_traceparent_names_trace_and_parent() {
        let trace = of("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        assert_eq!(trace.id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(trace.parent.to_string(), "00f067aa0ba902b7");
        assert!(trace.flags.is_sampled());
        for damaged in [
            "",
            "00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-zzf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(of(damaged), None, "{damaged}");
        }
        assert_eq!(Trace::of(&HeaderMap::new()), None);
    }
}
