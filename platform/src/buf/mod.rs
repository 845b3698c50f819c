//! Memory that the kernel may touch: leases on pooled blocks, and data on its way out.
//!
//! A block belongs to exactly one of: the pool, an operation in flight, or a [`Lease`] in the hands
//! of the user. A lease gives it back when dropped; no count is kept and nothing is copied. Under
//! AddressSanitizer (`--cfg asan`) a block is poisoned unless a lease holds it, and the block of an
//! operation in flight is poisoned too, so that a touch from user space is reported at once.

pub mod poison;
mod pool;

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;

pub use pool::Pool;

/// Where a block goes when its lease ends.
///
/// # Safety
///
/// Whoever makes a [`Lease`] hands over the block until `give_back` is called with it, which
/// happens at most once a lease. `capacity` is always the same.
pub(crate) unsafe trait Home {
    /// The size of each block.
    fn capacity(&self) -> u32;

    /// Takes back the block at `block`.
    fn give_back(&self, block: NonNull<u8>);
}

/// Bytes in a block of the runtime's own memory, handed out without a copy.
///
/// It dereferences to a byte slice. Dropping it returns the block to its pool, so a lease holds a
/// whole block (16 KiB, unless the pool was made otherwise) however little of it is in view: copy
/// out what you want to keep for long.
///
/// # Examples
///
/// ```
/// use trio_platform::buf::Pool;
///
/// let pool = Pool::new(1024, 8);
/// let mut lease = pool.lease();
/// lease.extend(b"hello world");
/// lease.advance(6);
/// assert_eq!(&*lease, b"world");
/// ```
pub struct Lease {
    block: NonNull<u8>,
    start: u32,
    end: u32,
    /// Knows the rest: what size its blocks have, and which of them this is.
    home: Rc<dyn Home>,
}

// Each message moves its lease from hand to hand, and the future of each connection has room for several.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Lease>() <= 32, "a lease is half a cache line");

impl Lease {
    /// A lease on the block at `block`, showing none of it.
    ///
    /// # Safety
    ///
    /// `block` is valid for reads and writes of as many initialised bytes as `home` says, and nobody
    /// else touches it, until it is given back to `home`.
    #[inline]
    pub(crate) unsafe fn new(block: NonNull<u8>, home: Rc<dyn Home>) -> Self {
        if cfg!(asan) {
            poison::lift(block.as_ptr(), home.capacity() as usize);
        }
        Self {
            block,
            start: 0,
            end: 0,
            home,
        }
    }

    /// How many bytes the block holds in all.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.home.capacity() as usize
    }

    /// Shows the first `length` bytes of the block.
    pub(crate) fn fill_to(&mut self, length: usize) {
        assert!(
            length <= self.capacity(),
            "a block is not filled beyond its end"
        );
        self.start = 0;
        self.end = u32::try_from(length).expect("a block is smaller than 4 GiB");
    }

    /// The whole block, to be filled.
    pub(crate) fn block_mut(&mut self) -> &mut [u8] {
        // SAFETY: `Lease::new` was promised `capacity` initialised bytes that nobody else touches;
        // `&mut self` excludes every other slice of them.
        unsafe { std::slice::from_raw_parts_mut(self.block.as_ptr(), self.capacity()) }
    }

    /// The address of the block, for the kernel. Stays the same however the lease is moved.
    pub(crate) fn block_ptr(&self) -> *mut u8 {
        self.block.as_ptr()
    }

    /// Drops the first `count` bytes from view.
    ///
    /// # Panics
    ///
    /// If fewer than `count` bytes are in view.
    pub fn advance(&mut self, count: usize) {
        assert!(
            count <= self.len(),
            "cannot advance {count} bytes in {}",
            self.len()
        );
        self.start += u32::try_from(count).expect("a block is smaller than 4 GiB");
    }

    /// Keeps the first `count` bytes in view, and drops the rest; does nothing if there are fewer.
    pub fn truncate(&mut self, count: usize) {
        if count < self.len() {
            self.end = self.start + u32::try_from(count).expect("a block is smaller than 4 GiB");
        }
    }

    /// Appends as much of `bytes` as the block has room for, and returns how many bytes that was.
    pub fn extend(&mut self, bytes: &[u8]) -> usize {
        let end = self.end as usize;
        let count = bytes.len().min(self.capacity() - end);
        self.block_mut()[end..end + count].copy_from_slice(&bytes[..count]);
        self.end += u32::try_from(count).expect("a block is smaller than 4 GiB");
        count
    }
}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let length = (self.end - self.start) as usize;
        // SAFETY: `start <= end <= capacity` holds at all times, so the address stays in the block.
        let first = unsafe { self.block.as_ptr().add(self.start as usize) };
        // SAFETY: `Lease::new` was promised `capacity` initialised bytes that nobody else touches,
        // and `&self` excludes a mutable slice of them.
        unsafe { std::slice::from_raw_parts(first, length) }
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut [u8] {
        let (start, end) = (self.start as usize, self.end as usize);
        &mut self.block_mut()[start..end]
    }
}

impl AsRef<[u8]> for Lease {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({} bytes)", self.len())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if cfg!(asan) {
            poison::set(self.block.as_ptr(), self.capacity());
        }
        self.home.give_back(self.block);
    }
}

/// Data on its way out, owned by the operation that sends it.
#[derive(Debug)]
#[non_exhaustive]
pub enum SendData {
    /// A lease, sent from where it lies.
    Lease(Lease),
    /// A vector, sent from where it lies.
    Owned(Vec<u8>),
    /// Bytes that live for ever.
    Static(&'static [u8]),
}

impl Deref for SendData {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Lease(lease) => lease,
            Self::Owned(vec) => vec,
            Self::Static(bytes) => bytes,
        }
    }
}

impl From<Lease> for SendData {
    fn from(lease: Lease) -> Self {
        Self::Lease(lease)
    }
}

impl From<Vec<u8>> for SendData {
    fn from(vec: Vec<u8>) -> Self {
        Self::Owned(vec)
    }
}

impl From<&'static [u8]> for SendData {
    fn from(bytes: &'static [u8]) -> Self {
        Self::Static(bytes)
    }
}
