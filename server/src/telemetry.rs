//! Logging.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::{Log, LogFormat};

/// Sends what is traced to standard error, as configured. Does nothing if that was set up before.
pub fn init(log: &Log) {
    let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = match log.format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Whether a text is a level, or directives with a level each.
pub fn is_level(text: &str) -> bool {
    let level = |part: &str| match part.rsplit_once('=') {
        Some((_, level)) => level.trim().parse::<LevelFilter>().is_ok(),
        None => part.trim().parse::<LevelFilter>().is_ok(),
    };
    !text.trim().is_empty() && text.split(',').all(level) && EnvFilter::try_new(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        for text in ["info", "warn,smartedit_server=debug", "off"] {
            assert!(is_level(text), "{text}");
        }
        for text in ["", "loud", "info,h2=loud", "info,h2"] {
            assert!(!is_level(text), "{text}");
        }
    }
}
