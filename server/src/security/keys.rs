//! API keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::SecurityError;
use super::access::{Access, Grant};
use super::accounts::Accounts;
use super::file::Named;
use crate::config::{AuthConfig, KeyConfig};

/// Shortest key in a file: a shorter one could be guessed.
const MIN_CHARS: usize = 20;

/// The SHA-256 of a key.
type KeyDigest = [u8; 32];

/// The API keys that are known.
#[derive(Default)]
pub(super) struct Keys(Vec<Key>);

struct Key {
    digest: KeyDigest,
    access: Access,
}

impl Keys {
    /// Reads all keys.
    ///
    /// # Errors
    ///
    /// The first that cannot be used.
    pub(super) fn load(config: &AuthConfig, accounts: &Accounts) -> Result<Self, SecurityError> {
        let mut keys = Self::default();
        for (name, key) in &config.keys {
            keys.add(&format!("auth.keys.{name}"), name, key, accounts)?;
        }
        if let Some(path) = &config.keys_file {
            let file = Named { setting: "auth.keys_file", path };
            let listed = parse(file)?;
            for (name, mut key) in listed {
                let directory = path.parent();
                key.file =
                    key.file.map(|file| directory.map_or(file.clone(), |directory| directory.join(file)));
                keys.add(&format!("auth.keys_file.{name}"), &name, &key, accounts)?;
            }
        }
        Ok(keys)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is granted to the holder of a key, if it is known.
    ///
    /// What is compared are digests, of which an attacker cannot choose the beginning, and all of them, whole: the time that
    /// takes tells neither how much of a key was right nor which it is.
    pub(super) fn find(&self, presented: &str) -> Option<Access> {
        let presented = digest(presented.as_bytes());
        let mut found = u64::MAX;
        for (index, key) in (0_u64..).zip(&self.0) {
            found.conditional_assign(&index, presented.ct_eq(&key.digest));
        }
        self.0.get(usize::try_from(found).ok()?).map(|key| key.access.clone())
    }

    fn add(
        &mut self,
        setting: &str,
        name: &str,
        config: &KeyConfig,
        accounts: &Accounts,
    ) -> Result<(), SecurityError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            let message = "a name has 1 to 64 letters, digits, hyphens, underscores or dots";
            return Err(SecurityError::value(setting, message));
        }
        let digest = read_digest(setting, config)?;
        if let Some(other) = self.0.iter().find(|key| key.digest == digest) {
            let message = format!("is the same key as `{}`", other.access.label());
            return Err(SecurityError::value(setting, message));
        }
        if self.0.iter().any(|key| &**key.access.label() == name) {
            return Err(SecurityError::value(setting, "there is another key of this name"));
        }
        let identity: Arc<str> = format!("key {name}").into();
        let account = accounts
            .of(&identity, config.limits)
            .map_err(|(key, message)| SecurityError::value(format!("{setting}.limits.{key}"), message))?;
        let grant = Grant {
            label: name.into(),
            permissions: config.permissions.clone(),
            deployments: config.deployments.clone(),
            account,
        };
        self.0.push(Key { digest, access: Access::granted(identity, Arc::new(grant)) });
        Ok(())
    }
}

/// The SHA-256 of a key, in hexadecimal digits, as configurations have it.
pub(crate) fn fingerprint(key: &str) -> String {
    digest(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest(bytes: &[u8]) -> KeyDigest {
    Sha256::digest(bytes).into()
}

fn read_digest(setting: &str, config: &KeyConfig) -> Result<KeyDigest, SecurityError> {
    match (&config.sha256, &config.file) {
        (Some(text), None) => from_hex(text).ok_or_else(|| {
            SecurityError::value(format!("{setting}.sha256"), "is no SHA-256 in 64 hexadecimal digits")
        }),
        (None, Some(path)) => {
            let setting = format!("{setting}.file");
            let file = Named { setting: &setting, path };
            let text = file.read_text()?;
            let key = text.trim();
            if key.len() < MIN_CHARS || key.contains(|c: char| !c.is_ascii_graphic()) {
                let message = format!("must hold one key, of {MIN_CHARS} or more visible ASCII characters");
                return Err(file.wrong(message));
            }
            file.warn_if_public();
            Ok(digest(key.as_bytes()))
        }
        _ => Err(SecurityError::value(setting, "needs either `sha256` or `file`")),
    }
}

fn from_hex(text: &str) -> Option<KeyDigest> {
    let digits = text.as_bytes();
    let mut digest = KeyDigest::default();
    if digits.len() != 2 * digest.len() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(digest)
}

fn parse(file: Named<'_>) -> Result<BTreeMap<String, KeyConfig>, SecurityError> {
    toml::from_str(&file.read_text()?).map_err(|error: toml::de::Error| file.wrong(error.message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(keys: &[(&str, &str)]) -> Result<Keys, SecurityError> {
        let keys = keys.iter().map(|(name, key)| {
            let config = KeyConfig { sha256: Some(fingerprint(key)), ..KeyConfig::default() };
            ((*name).to_owned(), config)
        });
        let config = AuthConfig { keys: keys.collect(), ..AuthConfig::default() };
        Keys::load(&config, &Accounts::default())
    }

    #[test]
    fn every_key_is_found_and_nothing_else() {
        let keys = known(&[("a", "first"), ("b", "second"), ("c", "third")]).unwrap();
        let label = |key: &str| keys.find(key).map(|access| access.label().to_string());
        assert_eq!(label("first").as_deref(), Some("a"));
        assert_eq!(label("second").as_deref(), Some("b"));
        assert_eq!(label("third").as_deref(), Some("c"));
        for stranger in ["", "fourth", "firs", "first ", &fingerprint("first")] {
            assert_eq!(label(stranger), None, "{stranger}");
        }
        assert!(Keys::default().find("first").is_none());
    }

    #[test]
    fn two_keys_are_two() {
        let error = known(&[("a", "same"), ("b", "same")]).map(drop).unwrap_err();
        assert!(error.setting() == "auth.keys.b" && error.to_string().contains("`a`"), "{error}");
        assert_eq!(known(&[("a b", "x")]).map(drop).unwrap_err().setting(), "auth.keys.a b");
    }

    #[test]
    fn the_digest_is_the_standards() {
        assert_eq!(fingerprint("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(from_hex(&fingerprint("abc").to_uppercase()), Some(digest(b"abc")));
        for wrong in ["", "ba", &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(from_hex(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn keys_come_from_files_too() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        write("a.key", "a-key-of-many-characters\n");
        write("keys.toml", "[a]\nfile = \"a.key\"\npermissions = [\"admin\"]\ndeployments = [\"cats\"]\n");
        let config =
            AuthConfig { keys_file: Some(directory.path().join("keys.toml")), ..AuthConfig::default() };
        let load = || Keys::load(&config, &Accounts::default());
        let access = load().unwrap().find("a-key-of-many-characters").unwrap();
        assert!(access.may_use("cats") && !access.may_use("dogs"));

        let refused = |setting: &str, words: &str| {
            let error = load().map(drop).unwrap_err();
            assert!(error.setting() == setting && error.to_string().contains(words), "{error}");
        };
        write("a.key", "short");
        refused("auth.keys_file.a.file", "20 or more");
        write("a.key", "a key with spaces in it, which no header holds");
        refused("auth.keys_file.a.file", "visible");
        write("keys.toml", "[a]\nfile = \"b.key\"\n");
        refused("auth.keys_file.a.file", "b.key");
        write("keys.toml", "[a]\ncolour = 1\n");
        refused("auth.keys_file", "colour");
        write("keys.toml", "[a]\n");
        refused("auth.keys_file.a", "either");
        write("keys.toml", "[a]\nsha256 = \"1\"\n");
        refused("auth.keys_file.a.sha256", "64");
        let zero = format!("[a]\nsha256 = \"{}\"\nlimits = {{ max_concurrent = 0 }}\n", fingerprint("x"));
        write("keys.toml", &zero);
        refused("auth.keys_file.a.limits.max_concurrent", "1 or more");
    }
}
