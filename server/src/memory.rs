//! Memory of this machine and this process, where the operating system tells (Linux).

use std::fs::read_to_string;

/// Bytes that can be had without swapping.
pub(crate) fn available() -> Option<u64> {
    field(&read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

/// Most bytes this process has had resident so far, shared mappings included.
pub(crate) fn peak_resident() -> Option<u64> {
    field(&read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// Bytes this process has resident, shared mappings included.
pub(crate) fn resident() -> Option<u64> {
    field(&read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// The value of a line such as `VmHWM:   1024 kB`, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "VmPeak:\t 9 kB\nVmHWM:\t    2048 kB\n";
        assert_eq!(field(text, "VmHWM:"), Some(2 << 20));
        assert_eq!(field(text, "VmRSS:"), None);
        assert_eq!(field("VmHWM:\t many kB", "VmHWM:"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_tells_all() {
        assert!(available().is_some_and(|bytes| bytes > 0));
        assert!(resident().is_some_and(|bytes| bytes > 0));
        assert!(peak_resident().is_some_and(|bytes| bytes > 0));
    }
}
