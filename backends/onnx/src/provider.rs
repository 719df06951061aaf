//! Execution providers: which of those that are wanted can be had.

use std::collections::BTreeMap;

use ort::ep::{
    ArbitrarilyConfigurableExecutionProvider, CPU, CUDA, ExecutionProvider, ExecutionProviderDispatch,
    OpenVINO, TensorRT,
};
use ort::session::builder::SessionBuilder;
use smartedit_core::engine::Precision;
use smartedit_core::stage::{LoadError, Provider, StageKind, StageOptions};

use crate::backend::NAME;
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

/// Threads of a stage, at most.
const MAX_THREADS: usize = 1024;

/// Why options cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not with any library on any machine: the option, what is wrong with it, and what to do.
    Option { option: &'static str, message: String },
    /// Not here: why, and what to do.
    Unavailable { reason: String, remedy: String },
}

impl Refusal {
    pub(crate) fn unavailable(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into(), remedy: remedy.into() }
    }

    fn option(option: &'static str, message: impl Into<String>) -> Self {
        Self::Option { option, message: message.into() }
    }

    /// As an error of a stage.
    pub(crate) fn at(self, stage: StageKind) -> LoadError {
        match self {
            Self::Option { option, message } => LoadError::Option { engine: NAME, stage, option, message },
            Self::Unavailable { reason, remedy } => {
                LoadError::Unavailable { engine: NAME, stage, reason, remedy }
            }
        }
    }

    /// This one, with what else was tried.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unavailable { reason, remedy }, Self::Unavailable { reason: also, .. }) => {
                Self::Unavailable { reason: format!("{reason}; {also}"), remedy }
            }
            (first, _) => first,
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Option { option, message } => write!(f, "`{option}`: {message}"),
            Self::Unavailable { reason, remedy } => write!(f, "{reason}; {remedy}"),
        }
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
            let message = format!("there is no execution provider `{name}`; there are {}", known.join(", "));
            Refusal::option("providers", message)
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
            Self::Cpu => "use the precision `f32`",
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
        Refusal::unavailable(format!("execution provider `{}`: {reason}", self.name()), self.remedy())
    }

    fn wrong_option(self, message: &str) -> Refusal {
        Refusal::option("providers", format!("execution provider `{}`: {message}", self.name()))
    }
}

impl Chosen {
    /// The providers that are wanted, the first one first.
    ///
    /// # Errors
    ///
    /// What cannot be had anywhere.
    pub(crate) fn wanted(options: &StageOptions) -> Result<Vec<Self>, Refusal> {
        let device = options.device.as_str();
        let card = match device.split_once(':') {
            None if device == "cpu" => None,
            Some(("cuda", index)) if index.parse::<u16>().is_ok() => index.parse().ok(),
            _ => {
                let message = format!("`{device}` is unknown; use `cpu` or `cuda:N`");
                return Err(Refusal::option("device", message));
            }
        };
        if let Some(threads) = options.threads.filter(|threads| threads.get() > MAX_THREADS) {
            let message = format!("{threads} are more than {MAX_THREADS}");
            return Err(Refusal::option("threads", message));
        }
        let wanted = if options.providers.is_empty() {
            let kind = if card.is_some() { Kind::Cuda } else { Kind::Cpu };
            vec![Self { kind, card, options: BTreeMap::new() }]
        } else {
            let configured = options.providers.iter().map(|provider| Self::configured(provider, card));
            configured.collect::<Result<_, _>>()?
        };
        if options.precision != Precision::F32 && !wanted.iter().any(|provider| provider.kind.on_card()) {
            let message = format!(
                "ONNX Runtime has no kernels for most operations in {} on a CPU; use `f32`, or a device `cuda:N`",
                options.precision
            );
            return Err(Refusal::option("precision", message));
        }
        Ok(wanted)
    }

    /// The first of the wanted providers that can be had.
    pub(crate) fn first(runtime: &Runtime, wanted: Vec<Self>, precision: Precision) -> Result<Self, Refusal> {
        let mut refused: Option<Refusal> = None;
        for provider in wanted {
            match provider.try_out(runtime, precision) {
                Ok(()) => return Ok(provider),
                Err(refusal) => {
                    refused = Some(match refused {
                        Some(first) => first.and(refusal),
                        None => refusal,
                    });
                }
            }
        }
        Err(refused.unwrap_or_else(|| Refusal::option("providers", "none is listed")))
    }

    fn configured(provider: &Provider, card: Option<i32>) -> Result<Self, Refusal> {
        let kind = Kind::of(&provider.name)?;
        let mut options = provider.options.clone();
        let texts = options.iter().flat_map(|(key, value)| [key, value]);
        if let Some(text) = texts.into_iter().find(|text| text.contains('\0')) {
            return Err(kind.wrong_option(&format!("option {text:?} holds a zero character")));
        }
        let card = if kind.on_card() {
            match options.remove("device_id") {
                Some(text) => Some(text.parse::<u16>().map(i32::from).map_err(|_| {
                    kind.wrong_option(&format!("option `device_id` is `{text}`, a number is needed"))
                })?),
                None => Some(card.unwrap_or(0)),
            }
        } else {
            None
        };
        let provider = Self { kind, card, options };
        if kind == Kind::Cpu {
            provider.cpu()?;
        }
        Ok(provider)
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
            return Err(self.kind.refusal(&reason));
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
                _ => {
                    let message =
                        format!("it has no option `{key}` = `{value}`, only `use_arena` = `0` or `1`");
                    return Err(self.kind.wrong_option(&message));
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut StageOptions)) -> String {
        let mut options = StageOptions::default();
        change(&mut options);
        match Chosen::wanted(&options) {
            Err(refusal @ Refusal::Option { .. }) => refusal.to_string(),
            other => panic!("{other:?}"),
        }
    }

    fn provider(name: &str, option: Option<(&str, &str)>) -> Provider {
        let option = option.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Provider { name: name.to_owned(), options: option.into_iter().collect() }
    }

    #[test]
    fn what_no_machine_has_is_refused_without_a_library() {
        assert!(refused(|o| o.device = "tpu".to_owned()).contains("`tpu`"));
        assert!(refused(|o| o.device = "cuda:many".to_owned()).contains("`cuda:many`"));
        assert!(refused(|o| o.precision = Precision::Bf16).contains("bf16"));
        assert!(refused(|o| o.threads = std::num::NonZero::new(1 << 20)).contains("1048576"));
        assert!(refused(|o| o.providers = vec![provider("rocket", None)]).contains("`rocket`"));
        let option = Some(("speed", "high"));
        assert!(refused(|o| o.providers = vec![provider("cpu", option)]).contains("`speed`"));
        let option = Some(("device_id", "first"));
        assert!(refused(|o| o.providers = vec![provider("cuda", option)]).contains("`first`"));
    }

    #[test]
    fn the_card_is_that_of_the_option_or_else_of_the_device() {
        let wanted = |device: &str, option| {
            let device = device.to_owned();
            let providers = vec![provider("cuda", option), provider("cpu", None)];
            let options = StageOptions { device, providers, ..StageOptions::default() };
            let wanted = Chosen::wanted(&options).expect("all of it exists");
            wanted.iter().map(Chosen::device).collect::<Vec<_>>()
        };
        assert_eq!(wanted("cuda:1", None), ["cuda:1", "cpu"]);
        assert_eq!(wanted("cuda:1", Some(("device_id", "2"))), ["cuda:2", "cpu"]);
        assert_eq!(wanted("cpu", None), ["cuda:0", "cpu"]);
    }
}
