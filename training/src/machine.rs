//! Where training computes.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use smartedit_core::engine::{Engine as _, Precision};
use smartedit_core::tensor::HostTensor;
use smartedit_torch::{TorchEngine, TorchTensor};
use tch::{Kind, Tensor};

/// An engine whose attentions can be watched.
pub struct Machine {
    engine: TorchEngine,
    kind: Kind,
    watched: Arc<Mutex<Option<Vec<Attention>>>>,
}

/// The inputs of an attention.
pub struct Attention {
    /// `[batch, heads, n, d]`.
    pub queries: Tensor,
    /// `[batch, heads, m, d]`.
    pub keys: Tensor,
    /// What their products are multiplied with.
    pub scale: f64,
}

impl Attention {
    /// Scores of the first head before softmax, `[batch, n, m]`, in 32 bits.
    pub fn scores_of_first_head(&self) -> Tensor {
        let head = |x: &Tensor| x.select(1, 0);
        (head(&self.queries).matmul(&head(&self.keys).transpose(-2, -1)) * self.scale).to_kind(Kind::Float)
    }
}

impl Machine {
    /// A CPU with this number of threads.
    pub fn cpu(precision: Precision, threads: NonZeroUsize) -> Self {
        smartedit_allocator::keep_freed();
        tch::set_num_threads(i32::try_from(threads.get()).unwrap_or(i32::MAX));
        let watched: Arc<Mutex<Option<Vec<Attention>>>> = Arc::default();
        let record = watched.clone();
        let engine = TorchEngine::cpu(precision)
            .with_own_parameters()
            .with_threads(Some(threads))
            .with_attention_observer(move |queries, keys, scale| {
                if let Some(seen) = record.lock().unwrap_or_else(PoisonError::into_inner).as_mut()
                    && let (Ok(queries), Ok(keys)) = (queries.to_tensor(), keys.to_tensor())
                {
                    seen.push(Attention { queries, keys, scale });
                }
            });
        let kind = if precision == Precision::Bf16 { Kind::BFloat16 } else { Kind::Float };
        Self { engine, kind, watched }
    }

    /// The engine.
    pub fn engine(&self) -> &TorchEngine {
        &self.engine
    }

    /// The element type of arithmetic.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What `compute` returns, with the attentions it computed in their order.
    pub fn watching<R>(&self, compute: impl FnOnce() -> R) -> (R, Vec<Attention>) {
        let lock = || self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        *lock() = Some(Vec::new());
        let result = compute();
        (result, lock().take().unwrap_or_default())
    }

    /// A tensor for the networks, in their precision.
    pub fn enter(&self, tensor: &Tensor) -> TorchTensor {
        tensor.to_kind(self.kind).into()
    }

    /// A host tensor for the networks, in their precision.
    ///
    /// # Errors
    /// libtorch refuses it.
    pub fn constant(&self, value: impl Into<HostTensor>) -> anyhow::Result<TorchTensor> {
        Ok(self.engine.upload(&value.into()).and_then(|tensor| self.engine.cast(&tensor))?)
    }
}

/// What networks computed, in 32 bits, with its gradients.
///
/// # Errors
/// libtorch has no memory for it.
pub fn leave(tensor: &TorchTensor) -> anyhow::Result<Tensor> {
    Ok(tensor.to_tensor()?.to_kind(Kind::Float))
}
