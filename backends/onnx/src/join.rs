//! Values one after the other: a graph of one operator.

use ort::value::DynValue;
use smartedit_core::engine::{Engine, EngineError, Precision, Result};

use crate::graph::Graph;
use crate::recorder::{Operators, Recorder, Size};
use crate::session::{Runnable, Sessions};

/// Joins values of four dimensions along the first.
pub(crate) struct Join(Runnable);

impl Join {
    pub(crate) fn new(sessions: &Sessions<'_>) -> Result<Self> {
        let graph = pair(sessions.options.precision)?;
        sessions.of_graph(&graph).map(Self).map_err(|e| EngineError::new("join", e))
    }

    pub(crate) fn run(&self, values: &[&DynValue]) -> Result<DynValue> {
        let failed = |message: String| EngineError::new("join", message);
        let pair = |a: &DynValue, b: &DynValue| {
            let mut outputs = self.0.run(&[a, b]).map_err(|e| failed(e.to_string()))?;
            outputs.pop().ok_or_else(|| failed("gave no output".to_owned()))
        };
        let [first, second, rest @ ..] = values else {
            return Err(failed(format!("of {} values; two or more are needed", values.len())));
        };
        rest.iter().try_fold(pair(first, second)?, |joined, next| pair(&joined, next))
    }
}

/// The graph that joins two.
fn pair(precision: Precision) -> Result<Graph> {
    let recorder = Recorder::new(precision, Operators::Standard);
    let input = |name: &str| {
        let rows = std::iter::once(name.to_owned());
        let sizes = rows.chain((1..4).map(|axis| format!("size{axis}"))).map(Size::Named);
        recorder.input(name, precision.into(), sizes.collect())
    };
    let (first, second) = (input("first"), input("second"));
    let joined = recorder.concat(&[&first, &second], 0)?;
    Ok(Graph::of(vec![first, second], [("joined".to_owned(), joined)]))
}
