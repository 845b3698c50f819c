//! Owned descriptors: what closing promises, and where the winnings of an orphan wait.
//!
//! A [`Descriptor`] is shared by its owner and by every operation in flight on it, and is closed by
//! whoever lets go last. So its number is never used again while an operation may still refer to
//! it, and an operation never lands on a stranger's file.
//!
//! An operation that was abandoned but had won all the same (a receive that took bytes off the
//! socket, an accept that took a connection off the queue) leaves what it won in the
//! [stash](Descriptor::stashed_receive) of its descriptor; the next operation of that kind takes it
//! from there first. Nothing is lost, and nothing is out of order, as long as one waits for
//! [`Descriptor::orphans`] of its direction to be zero before submitting another.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

use socket2::Socket;

use crate::buf::Lease;
#[cfg(target_os = "linux")]
use crate::prefetch::prefetch;
use crate::sim;

/// An open descriptor, shared between its owner and the operations in flight on it.
#[derive(Clone)]
pub struct Descriptor(Rc<Inner>);

/// A handle that does not keep its descriptor open: what a future may hold that may be forgotten.
#[derive(Clone)]
pub struct WeakDescriptor(std::rc::Weak<Inner>);

impl fmt::Debug for WeakDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakDescriptor")
    }
}

impl WeakDescriptor {
    /// The descriptor, if it is still open.
    pub fn upgrade(&self) -> Option<Descriptor> {
        self.0.upgrade().map(Descriptor)
    }

    /// Asks for the memory that a message touches, counts of the handles included.
    #[cfg(target_os = "linux")]
    #[inline]
    pub(crate) fn foresee(&self) {
        let counts = 2 * size_of::<usize>();
        let first = self.0.as_ptr().cast::<u8>().wrapping_sub(counts);
        let length = std::mem::offset_of!(Inner, received) + size_of::<Stash>();
        prefetch(first, counts + length);
    }
}

/// In the order in which a message needs it: what every one looks at stands on the first cache line,
/// beside the counts of the handles.
#[repr(C)]
struct Inner {
    /// With which driver the descriptor is registered, and its number there; beside
    /// `registrar`, to be seen at a glance.
    place: Cell<Option<(DriverId, u32)>>,
    receive_orphans: Cell<u32>,
    /// How many there are in `received`, which is looked at only if there are any.
    stashed: Cell<u32>,
    /// What the last receive showed of the one after it; `None` until there was one.
    readable: Cell<Option<bool>>,
    /// Receives or accepts that have ended, as far as somebody has to know.
    taken: Cell<u8>,
    /// Receives in a row that have filled all the room they had.
    filled: Cell<u8>,
    /// Not looked at by a message, and in a gap.
    accept_orphans: Cell<u32>,
    object: Object,
    received: RefCell<Stash>,
    /// Of the driver that has registered the descriptor, the last if there were several.
    registrar: Cell<Option<Rc<dyn Registrar>>>,
    /// `None` until there was one: only a listener has any, and there are few of them.
    #[expect(clippy::box_collection, reason = "a word instead of four")]
    accepted: Cell<Option<Box<VecDeque<io::Result<Descriptor>>>>>,
}

// With the counts of the handles and the word of a general allocator 160 bytes, of each of many connections.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Inner>() <= 136, "a descriptor is small");

/// Results of receives, oldest first. There is rarely more than one, and that is neither worth an
/// allocation for each of many connections, nor a look at where the others would be.
#[derive(Default)]
struct Stash {
    first: Option<io::Result<Lease>>,
    /// `None` until there was a second.
    #[expect(clippy::box_collection, reason = "a word instead of four")]
    rest: Option<Box<VecDeque<io::Result<Lease>>>>,
}

impl Stash {
    #[inline]
    fn push_back(&mut self, result: io::Result<Lease>) {
        match self.first {
            None => self.first = Some(result),
            Some(_) => self.push_rest(result),
        }
    }

    #[cold]
    fn push_rest(&mut self, result: io::Result<Lease>) {
        self.rest.get_or_insert_default().push_back(result);
    }

    fn push_front(&mut self, result: io::Result<Lease>) {
        if let Some(second) = self.first.replace(result) {
            self.rest.get_or_insert_default().push_front(second);
        }
    }

    /// The oldest of so many.
    #[inline]
    fn pop_front(&mut self, count: u32) -> Option<io::Result<Lease>> {
        if count == 1 {
            return self.first.take();
        }
        self.pop_several()
    }

    #[cold]
    fn pop_several(&mut self) -> Option<io::Result<Lease>> {
        let second = self.rest.as_mut().and_then(|rest| rest.pop_front());
        std::mem::replace(&mut self.first, second)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A registration ends before the descriptor is closed.
        if let (Some(registrar), Some((_, index))) = (self.registrar.take(), self.place.get()) {
            registrar.forget(index as usize, &self.object);
        }
    }
}

/// Tells one driver of this process from all others, those that have gone included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DriverId(NonZeroU32);

impl DriverId {
    pub(crate) fn new() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        Self(NonZeroU32::new(number).expect("a process makes fewer than four thousand million"))
    }
}

/// Where a driver keeps what it knows of descriptors: one a driver, and each descriptor that is registered
/// there has a handle to it.
pub(crate) trait Registrar {
    /// Whether that driver still exists. If it does not, another may register the descriptor.
    fn is_live(&self) -> bool;

    /// The descriptor that was registered as `index` is about to be closed. Its driver may be gone.
    fn forget(&self, index: usize, object: &Object);
}

/// What is behind a descriptor.
pub(crate) enum Object {
    /// A socket of the system.
    Socket(Socket),
    /// Any other file of the system that can be waited for.
    #[cfg(unix)]
    File(std::os::fd::OwnedFd),
    /// A socket of the simulated network.
    Simulated(sim::Endpoint),
}

/// Which of the queues of a descriptor an operation takes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Bytes from a stream.
    Receive,
    /// Connections from a listener.
    Accept,
}

impl Descriptor {
    pub(crate) fn new(object: Object) -> Self {
        Self(Rc::new(Inner {
            place: Cell::new(None),
            receive_orphans: Cell::new(0),
            stashed: Cell::new(0),
            readable: Cell::new(None),
            taken: Cell::new(0),
            filled: Cell::new(0),
            accept_orphans: Cell::new(0),
            object,
            received: RefCell::default(),
            registrar: Cell::new(None),
            accepted: Cell::default(),
        }))
    }

    /// Takes over a socket of the system and makes it non-blocking.
    ///
    /// # Errors
    ///
    /// If the system refuses to make it non-blocking.
    pub fn from_socket(socket: Socket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self::new(Object::Socket(socket)))
    }

    /// Takes over any file of the system that can be waited for, such as a pipe.
    #[cfg(unix)]
    pub fn from_file(file: std::os::fd::OwnedFd) -> Self {
        Self::new(Object::File(file))
    }

    /// Whether only the simulation can work with it.
    #[cfg(target_os = "linux")]
    pub(crate) fn is_simulated(&self) -> bool {
        matches!(self.0.object, Object::Simulated(_))
    }

    pub(crate) fn object(&self) -> &Object {
        &self.0.object
    }

    /// The socket behind this descriptor.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if something else is.
    #[inline]
    pub fn socket(&self) -> io::Result<&Socket> {
        match &self.0.object {
            Object::Socket(socket) => Ok(socket),
            _ => Err(no_socket()),
        }
    }

    /// Whether both name the same open descriptor.
    pub fn same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// The number under which `driver` has registered the descriptor, if it has.
    #[inline]
    pub(crate) fn index_in(&self, driver: DriverId) -> Option<usize> {
        match self.0.place.get() {
            Some((id, index)) if id == driver => Some(index as usize),
            _ => None,
        }
    }

    /// Whether a driver has registered the descriptor that still exists.
    #[cold]
    pub(crate) fn is_registered(&self) -> bool {
        let registrar = self.0.registrar.take();
        let live = registrar.as_ref().is_some_and(|before| before.is_live());
        self.0.registrar.set(registrar);
        live
    }

    /// Notes that `driver`, whose registrar that is, knows the descriptor as `index`.
    pub(crate) fn register(&self, driver: DriverId, index: usize, registrar: Rc<dyn Registrar>) {
        assert!(
            !self.is_registered(),
            "a descriptor is registered with one driver at a time"
        );
        let number = u32::try_from(index).expect("fewer than four thousand million at once");
        let place = self.0.place.replace(Some((driver, number)));
        if let (Some(before), Some((_, index))) = (self.0.registrar.replace(Some(registrar)), place)
        {
            before.forget(index as usize, &self.0.object);
        }
    }

    /// Whether more bytes were waiting when the last receive ended.
    pub(crate) fn likely_readable(&self) -> bool {
        self.0.readable.get() == Some(true)
    }

    /// Whether the last receive took all that was waiting. Not the opposite of
    /// [`Descriptor::likely_readable`]: of a fresh connection neither is known.
    #[cfg(target_os = "linux")]
    pub(crate) fn likely_empty(&self) -> bool {
        self.0.readable.get() == Some(false)
    }

    pub(crate) fn set_likely_readable(&self, readable: bool) {
        self.0.readable.set(Some(readable));
        self.count_taken();
    }

    /// A receive or an accept has ended.
    pub(crate) fn count_taken(&self) {
        self.0.taken.set(self.0.taken.get().saturating_add(1));
    }

    /// How many receives or accepts have ended here, up to 255.
    #[cfg(target_os = "linux")]
    pub(crate) fn taken(&self) -> u8 {
        self.0.taken.get()
    }

    /// How many results of receives wait in the stash.
    #[cfg(target_os = "linux")]
    pub(crate) fn stashed_receives(&self) -> usize {
        self.0.stashed.get() as usize
    }

    /// Notes whether a receive has filled all the room it had.
    #[inline]
    pub(crate) fn note_filled(&self, is_filled: bool) {
        let before = if is_filled { self.0.filled.get() } else { 0 };
        self.0
            .filled
            .set(before.saturating_add(u8::from(is_filled)));
    }

    /// How many receives in a row have filled all the room they had, up to 255.
    #[inline]
    pub(crate) fn filled(&self) -> u8 {
        self.0.filled.get()
    }

    /// A handle that does not keep the descriptor open.
    pub fn downgrade(&self) -> WeakDescriptor {
        WeakDescriptor(Rc::downgrade(&self.0))
    }

    /// Bytes, an end of file (an empty lease) or an error that an abandoned receive won.
    #[inline]
    pub fn stashed_receive(&self) -> Option<io::Result<Lease>> {
        let count = self.0.stashed.get();
        if count == 0 {
            return None;
        }
        self.0.stashed.set(count - 1);
        self.0.received.borrow_mut().pop_front(count)
    }

    /// Puts bytes back that were taken but not used: the next receive gets them first.
    pub fn unreceive(&self, lease: Lease) {
        self.0.received.borrow_mut().push_front(Ok(lease));
        self.0.stashed.set(self.0.stashed.get() + 1);
    }

    #[inline]
    pub(crate) fn stash_receive(&self, result: io::Result<Lease>) {
        self.0.received.borrow_mut().push_back(result);
        self.0.stashed.set(self.0.stashed.get() + 1);
    }

    /// A connection, or an error, that came while nobody accepted or that an abandoned accept won.
    pub fn stashed_accept(&self) -> Option<io::Result<Self>> {
        let mut queue = self.0.accepted.take()?;
        let oldest = queue.pop_front();
        self.0.accepted.set(Some(queue));
        oldest
    }

    pub(crate) fn stash_accept(&self, accepted: io::Result<Self>) {
        let mut queue = self.0.accepted.take().unwrap_or_default();
        queue.push_back(accepted);
        self.0.accepted.set(Some(queue));
    }

    /// How many results of accepts wait in the stash.
    #[cfg(target_os = "linux")]
    pub(crate) fn stashed_accepts(&self) -> usize {
        let queue = self.0.accepted.take();
        let count = queue.as_ref().map_or(0, |queue| queue.len());
        self.0.accepted.set(queue);
        count
    }

    /// Abandoned operations of this direction that are still in flight.
    #[inline]
    pub fn orphans(&self, direction: Direction) -> u32 {
        self.orphan_count(direction).get()
    }

    pub(crate) fn add_orphan(&self, direction: Direction) {
        let count = self.orphan_count(direction);
        count.set(count.get() + 1);
    }

    pub(crate) fn remove_orphan(&self, direction: Direction) {
        let count = self.orphan_count(direction);
        assert!(count.get() > 0, "an orphan ends once");
        count.set(count.get() - 1);
    }

    #[inline]
    fn orphan_count(&self, direction: Direction) -> &Cell<u32> {
        match direction {
            Direction::Receive => &self.0.receive_orphans,
            Direction::Accept => &self.0.accept_orphans,
        }
    }
}

/// Not inlined: each message asks for its socket.
#[cold]
fn no_socket() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a socket of the system")
}

/// What a driver of the system says to a descriptor of the simulation.
pub(crate) fn simulated() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "a descriptor of the simulated network works with the simulation only",
    )
}

#[cfg(unix)]
impl std::os::fd::AsFd for Descriptor {
    /// # Panics
    ///
    /// If the descriptor belongs to the simulated network.
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match &self.0.object {
            Object::Socket(socket) => socket.as_fd(),
            Object::File(file) => file.as_fd(),
            Object::Simulated(_) => panic!("a simulated descriptor has no number"),
        }
    }
}

#[cfg(windows)]
impl std::os::windows::io::AsSocket for Descriptor {
    /// # Panics
    ///
    /// If the descriptor belongs to the simulated network.
    fn as_socket(&self) -> std::os::windows::io::BorrowedSocket<'_> {
        match &self.0.object {
            Object::Socket(socket) => socket.as_socket(),
            Object::Simulated(_) => panic!("a simulated descriptor has no number"),
        }
    }
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.object {
            Object::Socket(socket) => write!(f, "Descriptor({socket:?})"),
            #[cfg(unix)]
            Object::File(file) => write!(f, "Descriptor({file:?})"),
            Object::Simulated(endpoint) => write!(f, "Descriptor({endpoint:?})"),
        }
    }
}
