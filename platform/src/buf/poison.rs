//! Marks memory as out of bounds for user space while it is not the user's, under AddressSanitizer.
//!
//! Without `--cfg asan` both functions are empty. The kernel writes through poisoned memory without
//! a report, which is what lets rule 2 of `op/mod.rs` be tested on every run.

#[cfg(asan)]
unsafe extern "C" {
    fn __asan_poison_memory_region(address: *const core::ffi::c_void, size: usize);
    fn __asan_unpoison_memory_region(address: *const core::ffi::c_void, size: usize);
}

/// Any touch of these bytes, which are memory of the caller's, from user space is an error from now on.
#[inline]
pub fn set(address: *const u8, size: usize) {
    #[cfg(asan)]
    // SAFETY: the function only writes to the sanitizer's shadow of the region, and every region
    // passed here is memory of ours.
    unsafe {
        __asan_poison_memory_region(address.cast(), size);
    }
    let _ = (address, size);
}

/// These bytes may be touched again.
#[inline]
pub fn lift(address: *const u8, size: usize) {
    #[cfg(asan)]
    // SAFETY: as in `set`.
    unsafe {
        __asan_unpoison_memory_region(address.cast(), size);
    }
    let _ = (address, size);
}
