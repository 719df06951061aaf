//! The trace that a call is a part of, told to the other server.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::global::get_text_map_propagator;
use opentelemetry::propagation::Injector;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Names the current span as the caller's, in the way that the program has chosen for all of OpenTelemetry, if it has.
pub(crate) fn tell(headers: &mut HeaderMap) {
    let context = Span::current().context();
    get_text_map_propagator(|propagator| propagator.inject_context(&context, &mut Headers(headers)));
}

struct Headers<'a>(&'a mut HeaderMap);

impl Injector for Headers<'_> {
    /// Leaves out what has no value, such as a `tracestate` of nobody.
    fn set(&mut self, name: &str, value: String) {
        let name = HeaderName::try_from(name);
        if let (Ok(name), Ok(value), false) = (name, HeaderValue::try_from(&value), value.is_empty()) {
            self.0.insert(name, value);
        }
    }
}
