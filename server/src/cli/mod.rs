//! cli

