//! A stage that is one function: nothing is kept between calls.

use super::Logic;
use super::call::Call;
use super::executor::Executor;
use super::signature::{Function, Signature};
use crate::stage::StageError;
use crate::tensor::Tensors;

pub(super) struct Whole(pub(super) Signature);

impl<X: Executor> Logic<X> for Whole {
    type State = ();

    fn run(&self, (): &mut (), call: &Call<'_, X>) -> Result<Tensors, StageError> {
        let inputs: Vec<X::Value> =
            self.0.inputs.iter().map(|port| call.input(port)).collect::<Result<_, _>>()?;
        let inputs: Vec<Option<&X::Value>> = inputs.iter().map(Some).collect();
        let values = call.function(Function::Whole, &inputs)?;
        let mut outputs = Tensors::new();
        for (name, value) in self.0.outputs.iter().zip(&values) {
            call.output(&mut outputs, name.base, value)?;
        }
        Ok(outputs)
    }
}
