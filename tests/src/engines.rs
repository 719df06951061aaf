//! The matrix: every case runs on every engine that is built in.
//!
//! A new engine adds a module below with its backend, its engine in `f32`, and the cases it does not pass yet with
//! the reason for each; a `pair!` with each engine before it; and the names of them all to
//! [`matrix`](crate::matrix).

#[cfg(any(
    all(feature = "candle", feature = "torch"),
    all(any(feature = "candle", feature = "torch"), feature = "onnx")
))]
mod alternating;

use std::sync::Arc;

use smartedit_core::engine::{Engine, Precision};
use smartedit_core::model::NetworkConfig;
use smartedit_core::stage::{Backend, LoadError, Stage, StageInfo, StageOptions};
use smartedit_core::weights::WeightFile;

use crate::reference::ReferenceSums;

/// Loads a stage in `f32`.
pub type LoadStage = fn(&NetworkConfig, &WeightFile) -> Result<Arc<dyn Stage>, LoadError>;

/// An engine under test.
pub struct Row {
    /// The engine's name, as it stands in names of tests.
    pub name: &'static str,
    /// What loads stages.
    pub backend: Arc<dyn Backend>,
    /// Options of all stages.
    pub options: StageOptions,
    /// Loads a stage whose group norms sum as the reference's VAE encoder does.
    pub reference_sums: LoadStage,
    /// Cases that are known to fail, each with its reason.
    pub ignored: &'static [(&'static str, &'static str)],
}

impl Row {
    /// Whether the engine is excused from a case; says so.
    pub fn excused(&self, case: &str) -> bool {
        let entry = self.ignored.iter().find(|(ignored, _)| *ignored == case);
        if let Some((case, reason)) = entry {
            println!("{case} is not run on {}: {reason}", self.name);
        }
        entry.is_some()
    }
}

fn load_with_reference_sums<E: Engine + 'static>(
    engine: E,
    config: &NetworkConfig,
    weights: &WeightFile,
) -> Result<Arc<dyn Stage>, LoadError> {
    let info = StageInfo {
        kind: config.kind(),
        engine: "reference sums",
        device: "cpu".to_owned(),
        precision: Precision::F32,
        provider: None,
        weight_bytes: weights.tensor_bytes(),
    };
    let engine = ReferenceSums::new(Box::leak(Box::new(engine)));
    smartedit_core::stages::load(Arc::new(engine), config, weights, info)
}

/// candle on the CPU.
#[cfg(feature = "candle")]
pub mod candle {
    use super::{Arc, Row, StageOptions};

    /// The row of the matrix.
    pub fn row() -> Row {
        Row {
            name: "candle",
            backend: Arc::new(smartedit_candle::CandleBackend::new()),
            options: StageOptions::default(),
            reference_sums: |config, weights| super::load_with_reference_sums(engine(), config, weights),
            ignored: &[],
        }
    }

    /// The engine in `f32`.
    pub fn engine() -> smartedit_candle::CandleEngine {
        smartedit_candle::CandleEngine::cpu(smartedit_core::engine::Precision::F32)
    }
}

/// libtorch on the CPU.
#[cfg(feature = "torch")]
pub mod torch {
    use super::{Arc, Row, StageOptions};

    /// The row of the matrix.
    pub fn row() -> Row {
        Row {
            name: "torch",
            backend: Arc::new(smartedit_torch::TorchBackend::new()),
            options: StageOptions::default(),
            reference_sums: |config, weights| super::load_with_reference_sums(engine(), config, weights),
            ignored: &[],
        }
    }

    /// The engine in `f32`.
    pub fn engine() -> smartedit_torch::TorchEngine {
        smartedit_torch::TorchEngine::cpu(smartedit_core::engine::Precision::F32)
    }
}

/// ONNX Runtime on the CPU.
#[cfg(feature = "onnx")]
pub mod onnx {
    use super::{Arc, Row, StageOptions};

    /// The row of the matrix.
    pub fn row() -> Row {
        Row {
            name: "onnx",
            backend: Arc::new(smartedit_onnx::OnnxBackend::new(None)),
            options: StageOptions::default(),
            reference_sums: |config, weights| super::load_with_reference_sums(engine(), config, weights),
            ignored: &[
                ("bf16", NO_BF16),
                ("golden_pack_in_bf16", NO_BF16),
                ("default_model_in_bf16", NO_BF16),
                ("models_share_what_equal_stages_made", NO_BF16),
            ],
        }
    }

    const NO_BF16: &str = "ONNX Runtime has no kernels for most operations in bf16 on a CPU";

    /// The engine in `f32`, operation by operation.
    pub fn engine() -> smartedit_onnx::ImmediateEngine {
        smartedit_onnx::ImmediateEngine::new(smartedit_onnx::Operators::Fused)
            .unwrap_or_else(|e| panic!("{e}; {}", e.remedy()))
    }
}

/// Two engines: a row whose stages alternate between them, and both rows.
macro_rules! pair {
    ($name:ident: $even:ident $even_feature:literal, $odd:ident $odd_feature:literal) => {
        /// Two engines on one edit.
        #[cfg(all(feature = $even_feature, feature = $odd_feature))]
        pub mod $name {
            use super::alternating::mixed;
            use super::{Row, $even, $odd};

            /// The row of the matrix.
            pub fn row() -> Row {
                mixed(stringify!($name), $even::row(), $odd::row())
            }

            /// Both rows.
            pub fn pair() -> (Row, Row) {
                ($even::row(), $odd::row())
            }
        }
    };
}

pair!(candle_torch: candle "candle", torch "torch");
pair!(candle_onnx: candle "candle", onnx "onnx");
pair!(torch_onnx: torch "torch", onnx "onnx");

/// Makes one test per engine of each case.
///
/// - `matrix!(engine: a, b)` calls `a(&engine)` and `b(&engine)` with an `impl Engine`,
/// - `matrix!(row: a)` calls `a(&Row)`,
/// - `matrix!(edit: a)` calls `a(&Row)` also with rows whose stages alternate between two engines,
/// - `matrix!(pair: a)` calls `a(&Row, &Row)` with every two engines.
///
/// The tests are named `candle::a`, `candle_torch::a` and so on.
#[macro_export]
macro_rules! matrix {
    (edit: $($case:ident),+ $(,)?) => {
        $crate::matrix!(row: $($case),+);
        #[cfg(all(feature = "candle", feature = "torch"))]
        mod candle_torch {
            $crate::matrix!(@tests candle_torch row $($case)+);
        }
        #[cfg(all(feature = "candle", feature = "onnx"))]
        mod candle_onnx {
            $crate::matrix!(@tests candle_onnx row $($case)+);
        }
        #[cfg(all(feature = "torch", feature = "onnx"))]
        mod torch_onnx {
            $crate::matrix!(@tests torch_onnx row $($case)+);
        }
    };
    (pair: $($case:ident),+ $(,)?) => {
        #[cfg(all(feature = "candle", feature = "torch"))]
        mod candle_torch {
            $crate::matrix!(@pairs candle_torch $($case)+);
        }
        #[cfg(all(feature = "candle", feature = "onnx"))]
        mod candle_onnx {
            $crate::matrix!(@pairs candle_onnx $($case)+);
        }
        #[cfg(all(feature = "torch", feature = "onnx"))]
        mod torch_onnx {
            $crate::matrix!(@pairs torch_onnx $($case)+);
        }
    };
    ($kind:ident: $($case:ident),+ $(,)?) => {
        #[cfg(feature = "candle")]
        mod candle {
            $crate::matrix!(@tests candle $kind $($case)+);
        }
        #[cfg(feature = "torch")]
        mod torch {
            $crate::matrix!(@tests torch $kind $($case)+);
        }
        #[cfg(feature = "onnx")]
        mod onnx {
            $crate::matrix!(@tests onnx $kind $($case)+);
        }
    };
    (@tests $engine:ident $kind:ident $($case:ident)+) => {
        $(
            #[test]
            fn $case() {
                if !$crate::engines::$engine::row().excused(stringify!($case)) {
                    super::$case(&$crate::engines::$engine::$kind());
                }
            }
        )+
    };
    (@pairs $pair:ident $($case:ident)+) => {
        $(
            #[test]
            fn $case() {
                let (a, b) = $crate::engines::$pair::pair();
                if !a.excused(stringify!($case)) && !b.excused(stringify!($case)) {
                    super::$case(&a, &b);
                }
            }
        )+
    };
}
