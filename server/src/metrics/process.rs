//! The process, by the names of Prometheus' own client libraries. What the operating system does not tell is left out.

use std::fmt::Error;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::memory;

/// The process.
#[derive(Debug)]
pub(super) struct Process {
    begun: f64,
}

impl Process {
    /// A process that has just begun.
    pub(super) fn begun_now() -> Self {
        let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { begun: begun.as_secs_f64() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut gauge = |name: &str, help: &str, value: Option<f64>| match value {
            Some(value) => {
                let gauge = ConstGauge::new(value);
                gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
            }
            None => Ok(()),
        };
        gauge("process_start_time_seconds", "When the process began, since 1970", Some(self.begun))?;
        let resident = memory::resident().map(|bytes| bytes as f64);
        gauge("process_resident_memory_bytes", "Memory that the process has resident", resident)?;
        gauge("process_open_fds", "File descriptors that are open", open_files().map(|open| open as f64))?;
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        gauge("process_max_fds", "File descriptors that may be open", most.map(|most| most as f64))?;
        if let Some(seconds) = cpu_seconds() {
            let counter = ConstCounter::new(seconds);
            let help = "Processor time of the process, its own and the system's for it";
            let metric =
                encoder.encode_descriptor("process_cpu_seconds", help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        Ok(())
    }
}

fn open_files() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count())
}

fn cpu_seconds() -> Option<f64> {
    let ticks = ticks(&std::fs::read_to_string("/proc/self/stat").ok()?)?;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// `utime` and `stime`, the fields 14 and 15 of the process's status. The second one, its name in parentheses, may hold
/// anything.
fn ticks(status: &str) -> Option<u64> {
    let (_, after) = status.rsplit_once(')')?;
    let mut fields = after.split_whitespace().skip(11).map(str::parse::<u64>);
    Some(fields.next()?.ok()? + fields.next()?.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let status = "7 (a) b (c) S 1 1 1 0 -1 4194560 10 0 0 0 250 50 0 0 20 0 1 0 100";
        assert_eq!(ticks(status), Some(300));
        for damaged in ["", "7 (a", "7 (a) S 1 1", "7 (a) S 1 1 1 0 -1 4194560 10 0 0 0 many 50"] {
            assert_eq!(ticks(damaged), None, "{damaged}");
        }
    }
}
