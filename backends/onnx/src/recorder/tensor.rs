//! Recorded tensors: what a tensor is computed from, not what it holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use smartedit_core::engine::Precision;
use smartedit_core::tensor::HostTensor;
use smartedit_core::weights::WeightView;

use super::size::Size;

/// A tensor of a recording. Cloning shares it.
#[derive(Clone)]
pub struct Recorded(Arc<Inner>);

struct Inner {
    id: u64,
    origin: Origin,
    element: Element,
    shape: Vec<Size>,
    /// `[batch, n, heads · d]`, where this is `[batch, heads, n, d]` of it.
    whole: Option<Recorded>,
}

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// 32-bit floats.
    F32,
    /// 16-bit IEEE floats.
    F16,
    /// 16-bit floats with the exponent range of `f32`.
    Bf16,
    /// 64-bit integers.
    I64,
}

impl Element {
    /// The number of the type in ONNX.
    pub(crate) const fn onnx(self) -> i32 {
        match self {
            Self::F32 => 1,
            Self::I64 => 7,
            Self::F16 => 10,
            Self::Bf16 => 16,
        }
    }
}

impl From<Precision> for Element {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::Bf16,
            Precision::F16 => Self::F16,
        }
    }
}

/// Where a tensor comes from.
pub(crate) enum Origin {
    /// An input of the graph.
    Input(String),
    /// A parameter in a weight file.
    Parameter(String, WeightView),
    /// A value that the network brings along; floats get the tensor's element type.
    Constant(HostTensor),
    /// The output of an operator.
    Operator(Operator),
}

/// An operator of ONNX with one output.
pub(crate) struct Operator {
    pub(crate) name: &'static str,
    pub(crate) domain: &'static str,
    /// `None` stands for an input that is left out.
    pub(crate) inputs: Vec<Option<Recorded>>,
    pub(crate) attributes: Vec<(&'static str, Attribute)>,
}

/// The value of an operator's attribute.
#[derive(Debug, Clone)]
pub(crate) enum Attribute {
    Int(i64),
    Float(f32),
    Text(&'static str),
    Ints(Vec<i64>),
}

impl Recorded {
    pub(crate) fn new(origin: Origin, element: Element, shape: Vec<Size>) -> Self {
        Self::of_whole(origin, element, shape, None)
    }

    pub(crate) fn of_whole(origin: Origin, element: Element, shape: Vec<Size>, whole: Option<Self>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(Arc::new(Inner { id, origin, element, shape, whole }))
    }

    /// Unique in the process, and greater than the numbers of what the tensor is computed from.
    pub(crate) fn id(&self) -> u64 {
        self.0.id
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.0.origin
    }

    /// The type of the elements.
    pub fn element(&self) -> Element {
        self.0.element
    }

    /// The size of every dimension.
    pub fn shape(&self) -> &[Size] {
        &self.0.shape
    }

    pub(crate) fn whole(&self) -> Option<&Self> {
        self.0.whole.as_ref()
    }
}
