//! One step of several edits in one run.

use std::sync::Arc;

use ndarray::{Axis, Slice, concatenate};

use super::{Denoise, Prepared, Size, Step};
use crate::engine::EngineError;
use crate::stage::StageError;
use crate::stages::Logic;
use crate::stages::call::Call;
use crate::stages::executor::Executor;
use crate::tensor::{HostTensor, Tensors};

/// The conditioning of edits that run together, joined row after row.
///
/// Each of them holds on to it. As long as the same edits run together it is used as it is, and it goes with the last
/// of them.
pub(super) struct Shared<V> {
    members: Vec<u64>,
    size: Size,
    context: Vec<V>,
    feature: Option<V>,
}

const OUTPUT: &str = "noise_prediction";

impl Denoise {
    /// Does a step of each edit. All must have latents of one size.
    pub(super) fn steps_together<X: Executor>(
        &self,
        states: &mut [&mut Option<Prepared<X::Value>>],
        calls: &[Call<'_, X>],
    ) -> Result<Vec<Result<Tensors, StageError>>, StageError> {
        let call = match (&mut *states, calls) {
            ([state], [call]) => return Ok(vec![self.run(state, call)]),
            (_, []) => return Ok(Vec::new()),
            (_, [call, ..]) => call,
        };
        let (mut members, mut steps) = (Vec::new(), Vec::new());
        for (state, call) in states.iter_mut().zip(calls) {
            self.take_conditioning(state, call)?;
            let (prepared, step) = self.step(state, call)?;
            members.push(prepared);
            steps.push(step);
        }
        let size = steps[0].size();
        if let Some(other) = steps.iter().map(Step::size).find(|other| *other != size) {
            let message = format!("is of height and width {other:?} in one edit, {size:?} in another");
            return Err(call.refuse("sample", message));
        }
        let sample = call.upload(&stacked(call, steps.iter().map(|step| step.sample))?)?;
        let timestep = call.upload(&stacked(call, steps.iter().map(|step| step.timestep))?)?;
        for member in &mut members {
            self.resize(member, call, &sample, size)?;
        }
        let shared = share(call, &mut members, size)?;
        let context: Vec<&X::Value> = shared.context.iter().collect();
        let noise = self.predict(call, [&sample, &timestep], shared.feature.as_ref(), &context)?;
        parted(call, &noise, &members, calls)
    }
}

/// The joined conditioning: that of the last run, if the same edits were in it.
fn share<X: Executor>(
    call: &Call<'_, X>,
    members: &mut [&mut Prepared<X::Value>],
    size: Size,
) -> Result<Arc<Shared<X::Value>>, StageError> {
    let ids: Vec<u64> = members.iter().map(|member| member.id).collect();
    let last = members.first().and_then(|first| first.shared.clone());
    if let Some(last) = last.filter(|last| last.members == ids && last.size == size) {
        return Ok(last);
    }
    let length = members.iter().map(|member| member.context.len()).min().unwrap_or(0);
    let context = (0..length).map(|index| {
        let parts: Vec<&X::Value> = members.iter().map(|member| &member.context[index]).collect();
        call.join(&parts)
    });
    let context = context.collect::<Result<_, _>>()?;
    let features: Option<Vec<&X::Value>> =
        members.iter().flat_map(|member| std::iter::repeat_n(member.feature(), member.repeats)).collect();
    let feature = match features {
        Some(features) => Some(call.join(&features)?),
        None if members.iter().any(|member| member.feature.is_some()) => {
            let message = "is given for some edits of a run and not for others".to_owned();
            return Err(call.refuse("image_feature", message));
        }
        None => None,
    };
    let shared = Arc::new(Shared { members: ids, size, context, feature });
    for member in members {
        member.shared = Some(shared.clone());
    }
    Ok(shared)
}

/// Tensors of all edits, one after the other.
fn stacked<'a, X: Executor>(
    call: &Call<'_, X>,
    tensors: impl Iterator<Item = &'a HostTensor>,
) -> Result<HostTensor, StageError> {
    let views: Vec<_> = tensors
        .filter_map(|tensor| match tensor {
            HostTensor::F32(array) => Some(array.view()),
            HostTensor::I64(_) => None,
        })
        .collect();
    let joined = concatenate(Axis(0), &views);
    joined.map(HostTensor::from).map_err(|e| call.failed(EngineError::new("join", e)))
}

/// Each edit's rows of the output. What is not finite fails its own edit.
fn parted<X: Executor>(
    call: &Call<'_, X>,
    noise: &X::Value,
    members: &[&mut Prepared<X::Value>],
    calls: &[Call<'_, X>],
) -> Result<Vec<Result<Tensors, StageError>>, StageError> {
    let rows: usize = members.iter().map(|member| member.rows).sum();
    let noise = match call.download(noise)? {
        HostTensor::F32(noise) if noise.shape().first() == Some(&rows) => noise,
        other => {
            let message = format!("gave {:?} for {rows} rows", other.shape());
            return Err(call.failed(EngineError::new("step", message)));
        }
    };
    let mut next = 0;
    let part = |(member, call): (&&mut Prepared<X::Value>, &Call<'_, X>)| {
        let part = noise.slice_axis(Axis(0), Slice::from(next..next + member.rows));
        next += member.rows;
        call.check_finite(OUTPUT, part.view())?;
        Ok(Tensors::new().with(OUTPUT, part.to_owned()))
    };
    Ok(members.iter().zip(calls).map(part).collect())
}
