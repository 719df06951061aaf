//! Execution providers: which of those that are wanted can be had.

use std::collections::BTreeMap;

use ort::ep::{
    ArbitrarilyConfigurableExecutionProvider, CPU, CUDA, ExecutionProvider, ExecutionProviderDispatch,
    OpenVINO, TensorRT,
};
use ort::session::builder::SessionBuilder;
use smartedit_core::engine::Precision;
use smartedit_core::stage::{Provider, StageOptions};

use crate::library::Runtime;
use crate::recorder::Operators;

/// An execution provider that this engine knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Cpu,
    Cuda,
    TensorRt,
    OpenVino,
}

/// A provider with its options.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    pub(crate) kind: Kind,
    /// The graphics card, for providers that compute on one.
    pub(crate) card: Option<i32>,
    options: BTreeMap<String, String>,
}

/// Why no provider can be had, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    pub(crate) remedy: String,
}

impl Refusal {
    pub(crate) fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { reason: reason.into(), remedy: remedy.into() }
    }
}

impl Kind {
    const ALL: [Self; 4] = [Self::Cuda, Self::TensorRt, Self::OpenVino, Self::Cpu];

    /// The name used in configuration.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
            Self::OpenVino => "openvino",
        }
    }

    fn of(name: &str) -> Result<Self, Refusal> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|kind| format!("`{}`", kind.name())).collect();
            Refusal::new(
                format!("there is no execution provider `{name}`"),
                format!("use one of {}", known.join(", ")),
            )
        })
    }

    fn in_library(self) -> bool {
        match self {
            Self::Cpu => CPU::is_available(),
            Self::Cuda => CUDA::is_available(),
            Self::TensorRt => TensorRT::is_available(),
            Self::OpenVino => OpenVINO::is_available(),
        }
        .unwrap_or(false)
    }

    fn on_card(self) -> bool {
        matches!(self, Self::Cuda | Self::TensorRt)
    }

    const fn remedy(self) -> &'static str {
        match self {
            Self::Cpu => "use the CPU provider's only option, `use_arena` = `0` or `1`",
            Self::Cuda | Self::TensorRt => {
                "point `engines.onnx.library` at the library of ONNX Runtime for CUDA (PyPI: onnxruntime-gpu) on a \
                 machine with its CUDA, cuDNN and TensorRT, or list another provider after it"
            }
            Self::OpenVino => {
                "point `engines.onnx.library` at the library of ONNX Runtime with OpenVINO (PyPI: \
                 onnxruntime-openvino), or list another provider after it"
            }
        }
    }

    fn refusal(self, reason: &str) -> Refusal {
        Refusal::new(format!("execution provider `{}`: {reason}", self.name()), self.remedy())
    }
}

impl Chosen {
    /// The first of the wanted providers that can be had.
    pub(crate) fn first(runtime: &Runtime, options: &StageOptions) -> Result<Self, Refusal> {
        let wanted = Self::wanted(options)?;
        let mut refused: Option<Refusal> = None;
        for provider in wanted {
            match provider.try_out(runtime, options.precision) {
                Ok(()) => return Ok(provider),
                Err(refusal) => {
                    refused = Some(match refused {
                        Some(first) => {
                            Refusal { reason: format!("{}; {}", first.reason, refusal.reason), ..first }
                        }
                        None => refusal,
                    });
                }
            }
        }
        Err(refused.unwrap_or_else(|| Refusal::new("no execution provider is listed", "list one")))
    }

    fn wanted(options: &StageOptions) -> Result<Vec<Self>, Refusal> {
        let device = options.device.as_str();
        let card = match device.split_once(':') {
            None if device == "cpu" => None,
            Some(("cuda", index)) if index.parse::<u16>().is_ok() => index.parse().ok(),
            _ => {
                let reason = format!("device `{device}` is unknown");
                return Err(Refusal::new(reason, "use `cpu` or `cuda:N`"));
            }
        };
        if options.providers.is_empty() {
            let kind = if card.is_some() { Kind::Cuda } else { Kind::Cpu };
            return Ok(vec![Self { kind, card, options: BTreeMap::new() }]);
        }
        options.providers.iter().map(|provider| Self::configured(provider, card)).collect()
    }

    fn configured(provider: &Provider, card: Option<i32>) -> Result<Self, Refusal> {
        let kind = Kind::of(&provider.name)?;
        let mut options = provider.options.clone();
        if let Some(text) = options.iter().flat_map(|(key, value)| [key, value]).find(|t| t.contains('\0')) {
            return Err(kind.refusal(&format!("option {text:?} holds a zero character")));
        }
        let card =
            match options.remove("device_id") {
                _ if !kind.on_card() => None,
                Some(text) => Some(text.parse().map_err(|_| {
                    kind.refusal(&format!("option `device_id` is `{text}`, a number is needed"))
                })?),
                None => Some(card.unwrap_or(0)),
            };
        Ok(Self { kind, card, options })
    }

    /// The device that computes.
    pub(crate) fn device(&self) -> String {
        self.card.map_or_else(|| "cpu".to_owned(), |card| format!("cuda:{card}"))
    }

    /// The operators that the provider has.
    pub(crate) fn operators(&self) -> Operators {
        match self.kind {
            Kind::Cpu | Kind::Cuda => Operators::Fused,
            Kind::TensorRt | Kind::OpenVino => Operators::Standard,
        }
    }

    /// Adds the provider to a session.
    pub(crate) fn register(&self, builder: SessionBuilder) -> Result<SessionBuilder, Refusal> {
        let provider = self.dispatch()?.error_on_failure();
        builder.with_execution_providers([provider]).map_err(|e| self.kind.refusal(&e.to_string()))
    }

    fn try_out(&self, runtime: &Runtime, precision: Precision) -> Result<(), Refusal> {
        if !self.kind.in_library() {
            let reason = format!("{} has not got it", runtime.path().display());
            return Err(self.kind.refusal(&reason));
        }
        if !self.kind.on_card() && precision != Precision::F32 {
            let reason = format!("it has no kernels for most operations in {precision}");
            return Err(Refusal {
                remedy: "use the precision `f32`, or a device `cuda:N`".to_owned(),
                ..self.kind.refusal(&reason)
            });
        }
        let builder = SessionBuilder::new(runtime.environment());
        self.register(builder.map_err(|e| self.kind.refusal(&e.to_string()))?).map(drop)
    }

    fn dispatch(&self) -> Result<ExecutionProviderDispatch, Refusal> {
        Ok(match self.kind {
            Kind::Cpu => self.cpu()?,
            Kind::Cuda => self.with_options(CUDA::default()).build(),
            Kind::TensorRt => self.with_options(TensorRT::default()).build(),
            Kind::OpenVino => self.with_options(OpenVINO::default()).build(),
        })
    }

    fn cpu(&self) -> Result<ExecutionProviderDispatch, Refusal> {
        let mut provider = CPU::default().with_arena_allocator(true);
        for (key, value) in &self.options {
            provider = match (key.as_str(), value.as_str()) {
                ("use_arena", "0") => provider.with_arena_allocator(false),
                ("use_arena", "1") => provider.with_arena_allocator(true),
                _ => return Err(self.kind.refusal(&format!("it has no option `{key}` = `{value}`"))),
            };
        }
        Ok(provider.build())
    }

    fn with_options<P: ArbitrarilyConfigurableExecutionProvider>(&self, mut provider: P) -> P {
        if let Some(card) = self.card {
            provider = provider.with_arbitrary_config("device_id", card);
        }
        self.options
            .iter()
            .fold(provider, |provider, (key, value)| provider.with_arbitrary_config(key, value))
    }
}
