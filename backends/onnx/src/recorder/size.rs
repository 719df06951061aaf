//! Sizes of dimensions, which a recording knows or only has a name for.

use std::fmt;

/// The size of a dimension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Size {
    /// The same in every run.
    Known(usize),
    /// Known when the graph runs; equal names in one graph are equal sizes.
    Named(String),
}

impl Size {
    /// The size as ONNX Runtime writes it: −1 if it is not known.
    pub(crate) fn or_minus_one(&self) -> i64 {
        match self {
            Self::Known(size) => i64::try_from(*size).unwrap_or(i64::MAX),
            Self::Named(_) => -1,
        }
    }

    /// The name, empty if the size is known.
    pub(crate) fn symbol(&self) -> String {
        match self {
            Self::Known(_) => String::new(),
            Self::Named(name) => name.clone(),
        }
    }

    pub(crate) fn plus(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Known(a), Self::Known(b)) => Self::Known(a + b),
            (Self::Known(0), size) | (size, Self::Known(0)) => size.clone(),
            (a, b) => Self::Named(format!("{a}+{b}")),
        }
    }

    pub(crate) fn times(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Known(a), Self::Known(b)) => Self::Known(a * b),
            (Self::Known(1), size) | (size, Self::Known(1)) => size.clone(),
            (a, b) => Self::Named(format!("({a})*({b})")),
        }
    }

    /// What a convolution with a kernel of this size makes of it; `None` if the kernel does not fit in.
    pub(crate) fn convolved(&self, kernel: usize, stride: usize, padding: usize) -> Option<Self> {
        match self {
            Self::Known(size) => {
                let steps = (size + padding).checked_sub(kernel)?.checked_div(stride)?;
                Some(Self::Known(steps + 1))
            }
            Self::Named(_) if stride == 1 && padding + 1 == kernel => Some(self.clone()),
            Self::Named(name) => Some(Self::Named(format!("({name}+{padding}-{kernel})/{stride}+1"))),
        }
    }

    /// The size of a dimension of which one has this size and the other that; `None` if they differ for certain.
    pub(crate) fn merged(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Known(a), Self::Known(b)) => (a == b).then(|| self.clone()),
            (Self::Named(_), Self::Known(_)) => Some(other.clone()),
            (_, Self::Named(_)) => Some(self.clone()),
        }
    }

    /// The same where a size of 1 is repeated.
    fn broadcast(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Known(1), size) | (size, Self::Known(1)) => Some(size.clone()),
            (a, b) => a.merged(b),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(size) => write!(f, "{size}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// A shape in messages: `[batch, 4, height, width]`.
pub(crate) fn shown(shape: &[Size]) -> String {
    let sizes: Vec<String> = shape.iter().map(ToString::to_string).collect();
    format!("[{}]", sizes.join(", "))
}

/// The shape of an element-by-element operation on both; `None` if they do not fit.
pub(crate) fn broadcast(a: &[Size], b: &[Size]) -> Option<Vec<Size>> {
    let (long, short) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    let (leading, rest) = long.split_at(long.len() - short.len());
    let rest = rest.iter().zip(short).map(|(a, b)| a.broadcast(b));
    leading.iter().cloned().map(Some).chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::Size::{self, Known};
    use super::{broadcast, shown};

    fn named(name: &str) -> Size {
        Size::Named(name.to_owned())
    }

    #[test]
    fn a_convolution_that_keeps_the_size_keeps_its_name() {
        assert_eq!(named("height").convolved(3, 1, 2), Some(named("height")));
        assert_eq!(named("height").convolved(3, 2, 2), Some(named("(height+2-3)/2+1")));
        assert_eq!(Known(6).convolved(3, 2, 2), Some(Known(3)));
        assert_eq!(Known(2).convolved(5, 1, 0), None);
    }

    #[test]
    fn what_may_differ_is_broadcast_and_what_does_differ_is_not() {
        let shape = [named("batch"), Known(4), named("n")];
        assert_eq!(broadcast(&shape, &[Known(1), Known(1)]).as_deref(), Some(&shape[..]));
        assert_eq!(broadcast(&[Known(4), Known(1)], &shape).as_deref(), Some(&shape[..]));
        assert_eq!(broadcast(&shape, &[Known(3), Known(1)]), None);
        assert_eq!(shown(&shape), "[batch, 4, n]");
    }
}
