//! How much stack a thread has left: what bounds the depth of nested scopes.

/// The address of the stack's top frame, near enough.
#[cfg(not(all(asan, target_arch = "x86_64")))]
#[inline(always)]
pub fn stack_position() -> usize {
    let here = 0_u8;
    (&raw const here).addr()
}

/// The address of the stack's top frame. AddressSanitizer keeps locals elsewhere, to find those that
/// are used after their function has returned, so the register is asked.
#[cfg(all(asan, target_arch = "x86_64"))]
#[inline(always)]
pub fn stack_position() -> usize {
    let here: usize;
    // SAFETY: copies a register, and touches no memory, no flag and no stack.
    unsafe {
        std::arch::asm!("mov {}, rsp", out(reg) here, options(nomem, nostack, preserves_flags));
    }
    here
}

/// Bytes between here and the end of this thread's stack; a cautious guess where the system does not
/// tell.
pub fn stack_remaining() -> usize {
    const GUESS: usize = 768 * 1024;
    lowest().map_or(GUESS, |lowest| stack_position().saturating_sub(lowest))
}

#[cfg(target_os = "linux")]
fn lowest() -> Option<usize> {
    let mut attributes = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: always sound to call.
    let this = unsafe { libc::pthread_self() };
    // SAFETY: the thread is alive, being this one, and the attributes may be uninitialised.
    let failed = unsafe { libc::pthread_getattr_np(this, attributes.as_mut_ptr()) };
    if failed != 0 {
        return None;
    }
    let mut lowest = std::ptr::null_mut();
    let mut size = 0;
    // SAFETY: the attributes have been initialised by the call above, and both places are valid.
    let failed =
        unsafe { libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut lowest, &raw mut size) };
    // SAFETY: initialised above, and not used again.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    (failed == 0).then(|| lowest.addr())
}

#[cfg(not(target_os = "linux"))]
fn lowest() -> Option<usize> {
    None
}
