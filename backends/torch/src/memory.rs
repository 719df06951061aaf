//! What becomes of the memory that libtorch frees.

use std::sync::Once;

/// Keeps up to half a gibibyte of freed memory in the process.
///
/// At every call, a convolution brings its weights into the layout of its kernel, in a buffer of tens of megabytes.
/// By itself glibc returns such a buffer to the system at once, which then has to clear it again, page by page,
/// hundreds of times in a denoising step. Threads that start later share one arena: in those of their own, buffers
/// of this size would go to the system all the same.
pub fn keep_freed() {
    static ONCE: Once = Once::new();
    ONCE.call_once(set_thresholds);
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
fn set_thresholds() {
    const KEPT: libc::c_int = 512 << 20;
    // SAFETY: these calls only change from what size on later calls of `malloc` and `free` turn to the system, and
    // where new threads allocate. They may be made at any time, on any thread.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Returns what is freed and kept to the system.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub(crate) fn give_back() {
    // SAFETY: the call only returns pages that the allocator has on its free lists. It may be made at any time, on any
    // thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Nothing is known to be kept.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn give_back() {}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn set_thresholds() {}
