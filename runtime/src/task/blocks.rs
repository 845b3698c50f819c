//! The memory that tasks have left, kept on their thread for the tasks to come.
//!
//! A server begins a task a connection and ends one a connection, of the same few types. A general
//! allocator takes longer over the two than the rest of spawning and ending does, and longer still
//! when a thousand end at once. So what is freed is kept, by size, up to a bound.
//!
//! Under AddressSanitizer nothing is kept, so that a touch of what was freed is found.

use std::cell::RefCell;
use std::mem::MaybeUninit;

/// A piece of a block; aligned as what the general allocator gives.
#[repr(align(16))]
pub(super) struct Line(#[expect(dead_code, reason = "it is a size")] [u8; LINE]);

pub(super) type Block = Box<[MaybeUninit<Line>]>;

/// Bytes of a line.
pub(super) const LINE: usize = 32;
const _: () = assert!(size_of::<Line>() == LINE, "lines lie end to end");

/// Blocks of more lines are not kept.
const LINES_MAX: usize = 32;

/// Of blocks of one size so many lines are kept.
const LINES_KEPT: usize = 256 * 1024 / LINE;

thread_local! {
    /// By the number of lines, from one.
    static KEPT: [RefCell<Vec<Block>>; LINES_MAX] =
        const { [const { RefCell::new(Vec::new()) }; LINES_MAX] };
}

/// A block of so many lines, at least one.
#[inline]
pub(super) fn take(lines: usize) -> Block {
    let kept = KEPT.try_with(|kept| kept.get(lines - 1)?.borrow_mut().pop());
    kept.ok()
        .flatten()
        .unwrap_or_else(|| Box::new_uninit_slice(lines))
}

/// Keeps `block` for the next, or frees it.
#[inline]
pub(super) fn give(block: Block) {
    if cfg!(asan) {
        return;
    }
    let lines = block.len();
    // Where the thread is ending, the block is freed with the closure.
    let _ = KEPT.try_with(|kept| {
        if let Some(kept) = kept.get(lines - 1) {
            let mut kept = kept.borrow_mut();
            if kept.len() * lines < LINES_KEPT {
                kept.push(block);
            }
        }
    });
}
