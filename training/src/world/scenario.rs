//! What makes an instruction hard.

use smartedit_core::metrics;

/// The six scenarios of Reason-Edit, and instructions that are none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scenario {
    /// "the left cat": place tells the object from others.
    LeftRight,
    /// "the bigger cat": size tells it from others.
    RelativeSize,
    /// "the cat in the mirror": it is the reflection, or what is reflected.
    Mirror,
    /// "the red apple": colour tells it from others.
    Color,
    /// "the cat" among three or four different things.
    MultipleObjects,
    /// "the animal that barks": knowledge of the world tells it.
    Reasoning,
    /// "the cat" in a scene where nothing competes.
    Plain,
}

impl Scenario {
    /// All seven.
    pub const ALL: [Self; 7] = [
        Self::LeftRight,
        Self::RelativeSize,
        Self::Mirror,
        Self::Color,
        Self::MultipleObjects,
        Self::Reasoning,
        Self::Plain,
    ];

    /// The scenario of Reason-Edit that it is.
    pub fn benchmark(self) -> Option<metrics::Scenario> {
        match self {
            Self::LeftRight => Some(metrics::Scenario::LeftRight),
            Self::RelativeSize => Some(metrics::Scenario::RelativeSize),
            Self::Mirror => Some(metrics::Scenario::Mirror),
            Self::Color => Some(metrics::Scenario::Color),
            Self::MultipleObjects => Some(metrics::Scenario::MultipleObjects),
            Self::Reasoning => Some(metrics::Scenario::Reasoning),
            Self::Plain => None,
        }
    }

    /// Its name in results: "left-right".
    pub fn key(self) -> &'static str {
        self.benchmark().map_or("plain", metrics::Scenario::name)
    }
}
