//! The functions of a network, each recorded once and run by ONNX Runtime.

use std::collections::BTreeMap;

use ort::value::DynValue;
use smartedit_core::engine::{EngineError, Result};
use smartedit_core::stages::{Elements, Executor, Function, Network, Port, Signature};
use smartedit_core::tensor::HostTensor;

use crate::graph::Graph;
use crate::join::Join;
use crate::narrow::Narrow;
use crate::recorder::{Element, Recorded, Recorder};
use crate::session::{Runnable, Sessions};
use crate::value;

/// A recorded network.
pub(crate) struct GraphExecutor {
    functions: BTreeMap<Function, (Runnable, Vec<Absent>)>,
    narrow: Narrow,
    join: Join,
}

/// What stands for an input that is not given, where that is allowed.
type Absent = Option<DynValue>;

impl GraphExecutor {
    /// Records the functions and makes a session of each.
    pub(crate) fn new(
        recorder: &Recorder,
        network: &Network<Recorded>,
        signatures: &[Signature],
        sessions: &Sessions<'_>,
    ) -> Result<Self> {
        let mut functions = BTreeMap::new();
        for signature in signatures {
            let function = signature.function;
            let failed = |e: ort::Error| EngineError::new(function.name(), e);
            let graph = Graph::record(recorder, network, signature)?;
            let runnable = sessions.of_graph(&graph).map_err(failed)?;
            let precision = sessions.options.precision.into();
            let absent = signature.inputs.iter().map(|port| absent(port, precision));
            let absent = absent.collect::<ort::Result<_>>().map_err(failed)?;
            functions.insert(function, (runnable, absent));
        }
        let (narrow, join) = (Narrow::new(sessions)?, Join::new(sessions)?);
        Ok(Self { functions, narrow, join })
    }
}

fn absent(port: &Port, precision: Element) -> ort::Result<Absent> {
    let element = match port.elements {
        Elements::F32 => Element::F32,
        Elements::Ids { .. } => Element::I64,
        Elements::Computed => precision,
    };
    port.absent.as_ref().map(|shape| value::zeros(shape, element)).transpose()
}

impl Executor for GraphExecutor {
    type Value = DynValue;

    fn upload(&self, tensor: &HostTensor) -> Result<DynValue> {
        value::from_host(tensor).map_err(|e| EngineError::new("upload", e))
    }

    fn download(&self, value: &DynValue) -> Result<HostTensor> {
        value::to_host(value).map_err(|e| EngineError::new("download", e))
    }

    fn narrow(&self, value: &DynValue, axis: usize, start: usize, length: usize) -> Result<DynValue> {
        self.narrow.run(value, axis, start, length)
    }

    fn join(&self, values: &[&DynValue]) -> Result<DynValue> {
        self.join.run(values)
    }

    fn call(&self, function: Function, inputs: &[Option<&DynValue>]) -> Result<Vec<DynValue>> {
        let failed = |message: String| EngineError::new(function.name(), message);
        let (runnable, absent) =
            self.functions.get(&function).ok_or_else(|| failed("was not recorded".to_owned()))?;
        if inputs.len() != absent.len() {
            return Err(failed(format!("takes {} inputs, not {}", absent.len(), inputs.len())));
        }
        let inputs = inputs.iter().zip(absent).map(|(given, absent)| {
            given.or(absent.as_ref()).ok_or_else(|| failed("lacks an input".to_owned()))
        });
        runnable.run(&inputs.collect::<Result<Vec<_>>>()?).map_err(|e| failed(e.to_string()))
    }
}
