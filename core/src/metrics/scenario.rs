//! The scenarios of Reason-Edit, and where its files keep them.

use std::fmt;

/// A scenario of the benchmark: what must be understood to find what is to be edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scenario {
    /// Place tells the object from others.
    LeftRight,
    /// Size tells it from others.
    RelativeSize,
    /// It is a reflection, or what is reflected.
    Mirror,
    /// Colour tells it from others.
    Color,
    /// It is one of several things.
    MultipleObjects,
    /// Knowledge of the world tells it.
    Reasoning,
}

impl Scenario {
    /// In the benchmark's order.
    pub const ALL: [Self; 6] = [
        Self::LeftRight,
        Self::RelativeSize,
        Self::Mirror,
        Self::Color,
        Self::MultipleObjects,
        Self::Reasoning,
    ];

    /// The name in JSON and in outcomes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LeftRight => "left-right",
            Self::RelativeSize => "relative-size",
            Self::Mirror => "mirror",
            Self::Color => "color",
            Self::MultipleObjects => "multiple-objects",
            Self::Reasoning => "reasoning",
        }
    }

    /// The scenario of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scenario| scenario.name() == name)
    }

    /// How the directory of its pictures, masks and instructions ends.
    pub const fn directory(self) -> &'static str {
        match self {
            Self::LeftRight => "1-Left-Right",
            Self::RelativeSize => "2-Relative-Size",
            Self::Mirror => "3-Mirror",
            Self::Color => "4-Color",
            Self::MultipleObjects => "5-Multiple-Objects",
            Self::Reasoning => "6-Reasoning",
        }
    }

    /// The file of its instructions.
    pub const fn text_file(self) -> &'static str {
        match self {
            Self::LeftRight => "Left_Right_text.txt",
            Self::RelativeSize => "Size_text.txt",
            Self::Mirror => "Mirror_text.txt",
            Self::Color => "Color_text.txt",
            Self::MultipleObjects => "MultipleObjects_text.txt",
            Self::Reasoning => "Reason_test.txt",
        }
    }

    /// How the directory of its edited pictures ends, as the official scripts name it.
    pub const fn edited_directory(self) -> &'static str {
        match self {
            Self::LeftRight => "LeftRight_metrics_1",
            Self::RelativeSize => "RelativeSize_metrics_2",
            Self::Mirror => "Mirror_metrics_3",
            Self::Color => "Color_metrics_4",
            Self::MultipleObjects => "MultipleObjects_metrics_5",
            Self::Reasoning => "Reasoning_metrics_1",
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
