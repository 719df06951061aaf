//! A model of another server as a program.

use std::sync::Arc;

use smartedit_core::engine::Result;
use smartedit_core::interest;
use smartedit_core::stages::program::{Input, Runner};
use smartedit_core::tensor::Tensors;

use crate::backend::Io;
use crate::batch::in_parts;
use crate::connection::Connection;
use crate::contract::Contract;
use crate::failure::CallError;
use crate::tensors;

/// A model of another server that fits a stage.
pub(crate) struct RemoteModel {
    pub(crate) io: Arc<Io>,
    pub(crate) connection: Connection,
    pub(crate) contract: Contract,
    /// The outputs that are asked for.
    pub(crate) wanted: Vec<String>,
    pub(crate) raw: bool,
    /// Model and server, for messages.
    pub(crate) who: String,
}

impl Runner for RemoteModel {
    fn inputs(&self) -> &[Input] {
        &self.contract.inputs
    }

    fn outputs(&self) -> Option<&[String]> {
        Some(&self.contract.outputs)
    }

    fn batches(&self) -> bool {
        self.contract.batches
    }

    fn run(&self, inputs: &Tensors) -> Result<Tensors> {
        match self.contract.max_rows {
            Some(most) => in_parts(inputs, most, |part| self.call(part)),
            None => self.call(inputs),
        }
    }
}

impl RemoteModel {
    fn call(&self, inputs: &Tensors) -> Result<Tensors> {
        let request = tensors::request(inputs, &self.wanted, self.raw);
        let interests = interest::current();
        let answer = self.io.block_on(self.connection.infer(request, &interests));
        let outputs = answer.and_then(|answer| tensors::outputs(answer).map_err(CallError::Failed));
        outputs.map_err(|error| {
            if error != CallError::Unwanted {
                tracing::warn!(%error, "{} does not compute its stage", self.who);
            }
            error.of_engine(&self.who)
        })
    }
}
