//! Asking the processor for memory before it is needed.
//!
//! A server with many connections finds nothing of one in the near caches when its turn comes, and the
//! kernel has used them for itself meanwhile. What one knows of a connection leads to the next (a
//! completion to a wait, that to a task, that to its future), so each step would wait for memory
//! in turn. Whoever has several completions in hand asks for one step of all of them, and by the time the
//! last was asked for the first is there.
//!
//! It is a hint: nothing is read, no address is wrong, and where no hint is known nothing happens.

/// Bytes that the processor fetches at once.
const LINE: usize = 64;

/// Asks for the `length` bytes at `place`, which need not be anything that may be read.
#[inline(always)]
pub fn prefetch<T>(place: *const T, length: usize) {
    let place = place.cast::<u8>();
    let mut offset = 0;
    while offset < length {
        prefetch_line(place.wrapping_add(offset));
        offset += LINE;
    }
    // The last byte may lie on a line of its own. So no address has to be rounded, and where the length
    // is a constant this is nothing but so many instructions.
    prefetch_line(place.wrapping_add(length.saturating_sub(1)));
}

#[inline(always)]
fn prefetch_line(place: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the instruction is part of SSE, which every x86-64 has, and faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(place.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
