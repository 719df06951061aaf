//! `smartedit key`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Subcommand;
use ring::rand::{SecureRandom, SystemRandom};

use super::{CliError, print};
use crate::security::fingerprint;

/// Bytes of chance in a key.
const BYTES: usize = 32;

/// What keys begin with, so that those who search for lost secrets find them.
const PREFIX: &str = "smartedit_";

#[derive(Debug, Subcommand)]
pub(super) enum Key {
    /// Make an API key and print it with its digest, which is what the configuration of a server has
    New,
}

impl Key {
    pub(super) fn run(self) -> Result<(), CliError> {
        let Self::New = self;
        let key = new()?;
        print(&format!("key = \"{key}\"\nsha256 = \"{}\"\n", fingerprint(&key)))
    }
}

fn new() -> Result<String, CliError> {
    let mut bytes = [0; BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| CliError::failed("the system gives no random bytes"))?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_long_and_differ() {
        let keys = [new().unwrap(), new().unwrap()];
        assert_ne!(keys[0], keys[1]);
        assert!(keys.iter().all(|key| key.len() == PREFIX.len() + 43 && !key.contains('.')));
    }
}
