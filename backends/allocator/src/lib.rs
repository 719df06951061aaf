//! What glibc's allocator does with memory that is freed. With other allocators, these functions do nothing.

/// Makes all threads allocate in one arena; to be called before any thread is started.
///
/// By itself glibc gives threads arenas of their own, and [`give_back`] cannot return the free end of those: of a model
/// that is unloaded, tens of megabytes stay, and more with every thread that ran it. Small allocations do not meet in
/// the arena, as each thread keeps a stock of them.
pub fn share_arena() {
    glibc::share_arena();
}

/// Keeps up to half a gibibyte of freed memory in the process, until it is given back.
///
/// By itself glibc returns a buffer of tens of megabytes to the system at once, which then has to clear it again, page
/// by page, for the next one. Threads that start later share one arena: in those of their own, buffers of this size
/// would go to the system all the same.
pub fn keep_freed() {
    glibc::share_arena();
    glibc::set_thresholds(512 << 20);
}

/// Returns what is freed and kept to the system.
pub fn give_back() {
    glibc::trim();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
mod glibc {
    pub(super) fn share_arena() {
        // SAFETY: the call only changes where threads allocate that have not done so yet. It may be made at any time,
        // on any thread.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, 1);
        }
    }

    pub(super) fn set_thresholds(bytes: libc::c_int) {
        // SAFETY: the calls only change from what size on later calls of `malloc` and `free` turn to the system. They
        // may be made at any time, on any thread.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, bytes);
            libc::mallopt(libc::M_TRIM_THRESHOLD, bytes);
        }
    }

    pub(super) fn trim() {
        // SAFETY: the call only returns pages that the allocator has on its free lists. It may be made at any time, on
        // any thread.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod glibc {
    pub(super) fn share_arena() {}

    pub(super) fn set_thresholds(_: i32) {}

    pub(super) fn trim() {}
}
