//! Resident memory of the process while an edit runs.

/// Resident memory of the process, in bytes, whatever it is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// At the end.
    pub resident: u64,
    /// The most that was seen between units of work; where the process came to have more than ever before, that.
    pub peak: u64,
}

/// Resident memory of the process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Resident {
    now: u64,
    /// The most since the process began.
    ever: u64,
}

/// Watches the memory of an edit.
pub(super) struct MemoryWatch {
    before: Option<Resident>,
    most: u64,
}

impl MemoryWatch {
    pub(super) fn start() -> Self {
        let before = Resident::read();
        Self { before, most: before.map_or(0, |resident| resident.now) }
    }

    /// Looks at the memory between two units of work.
    pub(super) fn look(&mut self) {
        if self.before.is_some() {
            self.most = self.most.max(Resident::read().map_or(0, |resident| resident.now));
        }
    }

    pub(super) fn finish(self) -> Option<Memory> {
        let (before, after) = (self.before?, Resident::read()?);
        let peak = if after.ever > before.ever { after.ever } else { self.most.max(after.now) };
        Some(Memory { resident: after.now, peak })
    }
}

impl Resident {
    /// `None` where there is no `/proc`.
    fn read() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/status").ok()?)
    }

    fn parse(status: &str) -> Option<Self> {
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
            kibibytes.checked_mul(1024)
        };
        Some(Self { now: bytes("VmRSS")?, ever: bytes("VmHWM")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_a_process_is_read() {
        let status = "Name:\tsmartedit\nVmPeak:\t  900 kB\nVmHWM:\t  120 kB\nVmRSS:\t   64 kB\nThreads:\t3\n";
        assert_eq!(Resident::parse(status), Some(Resident { now: 64 << 10, ever: 120 << 10 }));
        for damaged in ["", "VmRSS:\t64 kB\n", "VmHWM:\tmany kB\nVmRSS:\t64 kB\n"] {
            assert_eq!(Resident::parse(damaged), None, "{damaged}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_that_is_taken_while_an_edit_runs_is_seen() {
        const SIZE: usize = 64 << 20;
        let mut watch = MemoryWatch::start();
        let before = watch.before.unwrap().now;
        let taken = vec![1_u8; SIZE];
        watch.look();
        drop(std::hint::black_box(taken));
        let memory = watch.finish().unwrap();
        assert!(memory.peak >= before + SIZE as u64 / 2, "{memory:?} after {before}");
        assert!(memory.peak >= memory.resident);
    }
}
