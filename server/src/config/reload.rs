//! Reading the configuration again while the server runs.

use super::Config;

/// A configuration cannot be read again.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Where a running server gets its configuration from anew; it hands out only one that has been checked.
pub type Source = dyn Fn() -> Result<Config, SourceError> + Send + Sync;

impl Config {
    /// Names of the settings that differ and that only a new start brings into effect.
    pub fn needs_restart(&self, other: &Self) -> Vec<&'static str> {
        let differs = [
            ("listen", self.listen != other.listen),
            ("http", self.http != other.http),
            ("connections", self.connections != other.connections),
            ("limits", self.limits != other.limits),
            ("cache", self.cache != other.cache),
            ("log", self.log != other.log),
            ("telemetry", self.telemetry != other.telemetry),
            ("drain", self.drain != other.drain),
            ("admin", self.admin != other.admin),
            ("engines", self.engines != other.engines),
            ("adapters", self.adapters != other.adapters),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fixed_at_the_start_is_named() {
        let old = Config::default();
        let mut new = Config { listen: ([127, 0, 0, 1], 1).into(), ..Config::single("model") };
        new.limits.max_steps += 1;
        assert_eq!(old.needs_restart(&new), ["listen", "limits"]);
        assert!(old.needs_restart(&Config::single("model")).is_empty(), "deployments are changed in place");
    }
}
