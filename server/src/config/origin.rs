//! Where a setting was made, so that a complaint about it says so.

use std::collections::BTreeMap;
use std::fmt;

use toml::de::{DeTable, DeValue};

/// Where settings were made, by dotted key.
#[derive(Debug, Clone, Default)]
pub struct Origins(BTreeMap<String, String>);

impl Origins {
    /// Remembers the line of every key of a file.
    pub(super) fn of_file(name: &str, text: &str) -> Self {
        let mut origins = Self::default();
        if let Ok(table) = DeTable::parse(text) {
            origins.add(name, text, "", table.get_ref());
        }
        origins
    }

    fn add(&mut self, file: &str, text: &str, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let path = match prefix {
                "" => key.get_ref().to_string(),
                prefix => format!("{prefix}.{}", key.get_ref()),
            };
            self.note(file, text, &path, key.span().start);
            match value.get_ref() {
                DeValue::Table(inner) => self.add(file, text, &path, inner),
                DeValue::Array(elements) => {
                    for (index, element) in elements.iter().enumerate() {
                        let path = format!("{path}[{index}]");
                        self.note(file, text, &path, element.span().start);
                        if let DeValue::Table(inner) = element.get_ref() {
                            self.add(file, text, &path, inner);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn note(&mut self, file: &str, text: &str, path: &str, start: usize) {
        let before = text.get(..start).unwrap_or(text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        self.0.insert(path.to_owned(), format!("{file}:{line}"));
    }

    /// Remembers that a key was set from elsewhere.
    pub(super) fn set(&mut self, key: &str, origin: &str) {
        self.0.insert(key.to_owned(), origin.to_owned());
    }

    /// Where a key, or the innermost table or array around it, was set.
    pub fn of(&self, key: &str) -> Option<&str> {
        let mut key = key;
        loop {
            if let Some(origin) = self.0.get(key) {
                return Some(origin);
            }
            key = &key[..key.rfind(['.', '['])?];
        }
    }
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, dotted.
    pub key: String,
    /// What is wrong, and what is needed.
    pub message: String,
    /// Where the key was set: `file:line`, a variable or a flag.
    pub origin: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn add(&mut self, key: impl Into<String>, message: impl fmt::Display) {
        self.0.push(Problem { key: key.into(), message: message.to_string(), origin: None });
    }

    /// Adds a problem unless there is one of this key.
    pub(super) fn add_once(&mut self, key: String, message: impl fmt::Display) {
        if !self.0.iter().any(|problem| problem.key == key) {
            self.add(key, message);
        }
    }

    pub(super) fn locate(mut self, origins: &Origins) -> Self {
        for problem in &mut self.0 {
            problem.origin = origins.of(&problem.key).map(str::to_owned);
        }
        self
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The problems in the order of the configuration's keys.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => one.fmt(f),
            many => {
                write!(f, "{} problems:", many.len())?;
                many.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
            }
        }
    }
}
