//! The memory of a node: a counted cell with a head of a known type and a future of an erased one; the
//! lists that nodes are linked into; and the blocks of memory that ended tasks leave to new ones.
//!
//! Everything unsafe about tasks is here. The rules at the head of `task/mod.rs` are what the proofs
//! below refer to.

use std::borrow::Cow;
use std::cell::{Cell, UnsafeCell};
use std::future::Future;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};

use trio_platform::{buf::poison, prefetch};

use super::Locals;
use crate::cancel::Cause;
use crate::context::{self, Shared};
use crate::error::Result;
use crate::nursery::{Core, Notice};
use crate::thread::Queued;

/// The node stands in a ready queue.
const READY: u8 = 1;
const DONE: u8 = 2;
const BODY: u8 = 4;
/// The node is being polled, and a nursery inside it has to be polled again in the next turn.
const AGAIN: u8 = 8;
/// The task is to have a scope of its own as soon as something in it asks for its scope.
const APART: u8 = 16;
/// Of a task that is `APART`: it has been cancelled by itself.
const MARKED: u8 = 32;
/// The node was made ready for nothing but a nursery inside it, in which something is ready.
const BEHALF: u8 = 64;

// What is looked at less often.

/// Of a task: its future is in its stage, and has something to drop.
const RUNNING: u8 = 1;
/// Of a task: its output is in its stage.
const FINISHED: u8 = 2;
/// Somebody may still ask for the output.
const WANTED: u8 = 4;
/// The node stands among siblings.
const LISTED: u8 = 8;
/// The task has ended with an error or a panic that went to its nursery.
const FAILED: u8 = 16;
/// The task has ended with nothing but a cancellation of its own.
const CANCELLED: u8 = 32;

/// How many bytes of a future are prefetched before it is polled: a larger one consists mostly of states
/// that it is not in.
const FORESEEN: usize = 1024;

/// No wait, and no cancellation.
const NONE: u32 = u32::MAX;

/// The head of every task and of every nursery's body. What a wake looks at comes first.
#[repr(C)]
pub(crate) struct Node {
    vtable: &'static VTable,
    /// Of the run; alive as long as anything in the run is polled.
    shared: *const Shared,
    /// The number of handles: so wide that counting one more need not check for an overflow.
    references: Cell<u64>,
    /// The turn in which the node was woken.
    stamp: Cell<u32>,
    /// The cancel scope at the root of the node.
    pub(crate) scope: Cell<u32>,
    /// The first of the waits that were registered by this task and not released, or `NONE`.
    pub(crate) waits: Cell<u32>,
    /// The wait of a task that joins this one, or `NONE`.
    joiner: Cell<u32>,
    state: Flags,
    marks: Flags,
    /// Of a task that is `APART`: its wait, if that is all that it has in the tree of scopes; when it is
    /// `MARKED`, why. Else `NONE`.
    alone: Cell<u32>,
    /// The next in the ready queue.
    next_ready: Cell<Option<NonNull<Self>>>,
    /// Of a task the body of its home, the nursery that polls it. Of a body, whose home is its own
    /// nursery, the node in whose poll that nursery is polled, if there is no foreign waker between.
    around: UnsafeCell<Option<NodeRef>>,
    /// The values local to the task; the body of a nursery begins with those of its opener.
    locals: Cell<Option<Rc<Locals>>>,
    previous_sibling: Cell<Option<NonNull<Self>>>,
    next_sibling: Cell<Option<NonNull<Self>>>,
    /// An `Arc<Remote>` as a pointer, or null while there is none.
    remote: AtomicPtr<Remote>,
    info: TaskInfo,
}

/// What a task is called, and where it was spawned.
pub(crate) struct TaskInfo {
    pub(crate) name: Option<Cow<'static, str>>,
    pub(crate) place: &'static Location<'static>,
}

/// What a node knows from the beginning, so that it is not written twice when a nursery takes the task in.
#[derive(Default)]
pub(crate) struct Birth {
    /// Of a task the nursery that polls it.
    pub(crate) home: Option<NurseryRef>,
    pub(crate) scope: u32,
    pub(crate) locals: Option<Rc<Locals>>,
}

struct VTable {
    type_name: fn() -> &'static str,
    /// Where in the cell the stage is.
    stage: usize,
    /// The bytes of the cell.
    size: usize,
    /// Polls the future, which is at the pointer, once.
    poll: Poller,
    /// Drops the future, if it is there.
    drop_future: unsafe fn(NonNull<Node>),
    /// Moves the output, which is there, into the `Option<T>` behind the pointer.
    take_output: unsafe fn(NonNull<Node>, *mut ()),
    /// How many cache lines the block of the cell has, if it is one of those that are kept.
    lines: Option<usize>,
    /// Frees a cell of any other kind; drops neither future nor output.
    free: unsafe fn(NonNull<Node>),
}

/// A future's own `poll`, or one that keeps its output.
type Poller = unsafe fn(*mut (), &mut Context<'_>) -> Poll<Result<()>>;

/// What `F::poll` is.
type Own<F> = fn(Pin<&mut F>, &mut Context<'_>) -> Poll<Result<()>>;

#[repr(C)]
struct TaskCell<F, T> {
    node: Node,
    /// Never dropped with the cell: what is inside may borrow from a frame that has gone (rule 4).
    stage: UnsafeCell<Stage<F, T>>,
}

/// The part of a task behind its node: its future until it is `DONE`, to be dropped while `RUNNING`; its
/// output while `FINISHED`.
#[repr(C)]
union Stage<F, T> {
    future: ManuallyDrop<F>,
    output: ManuallyDrop<T>,
}

#[repr(C)]
struct NurseryCell {
    node: Node,
    core: Core,
}

/// Bits, in one byte: what is set in a part of a wider word and then read as a whole has to wait
/// until the store has left the CPU, and these are set by one level of nurseries for the next.
struct Flags(Cell<u8>);

impl Flags {
    #[inline]
    fn has(&self, any: u8) -> bool {
        self.0.get() & any != 0
    }

    #[inline]
    fn set(&self, flags: u8) {
        self.0.set(self.0.get() | flags);
    }

    #[inline]
    fn clear(&self, flags: u8) {
        self.0.set(self.0.get() & !flags);
    }
}

impl Node {
    #[inline(always)]
    fn new(
        vtable: &'static VTable,
        shared: &Arc<Shared>,
        state: u8,
        marks: u8,
        birth: Birth,
        info: TaskInfo,
    ) -> Self {
        Self {
            vtable,
            shared: Arc::as_ptr(shared),
            references: Cell::new(1),
            stamp: Cell::new(0),
            scope: Cell::new(birth.scope),
            waits: Cell::new(NONE),
            joiner: Cell::new(NONE),
            locals: Cell::new(birth.locals),
            state: Flags(Cell::new(state)),
            marks: Flags(Cell::new(marks)),
            alone: Cell::new(NONE),
            next_ready: Cell::new(None),
            around: UnsafeCell::new(birth.home.map(|home| home.0)),
            previous_sibling: Cell::new(None),
            next_sibling: Cell::new(None),
            remote: AtomicPtr::new(std::ptr::null_mut()),
            info,
        }
    }

    /// Whether this is the body of a nursery.
    pub(crate) fn is_body(&self) -> bool {
        self.state.has(BODY)
    }

    /// Whether the future has ended or been dropped.
    pub(crate) fn is_done(&self) -> bool {
        self.state.has(DONE)
    }

    /// Whether the task has ended with an error or a panic that went to its nursery.
    pub(crate) fn is_failed(&self) -> bool {
        self.marks.has(FAILED)
    }

    pub(crate) fn set_failed(&self) {
        self.marks.set(FAILED);
    }

    /// Whether the task has ended with nothing but a cancellation that went no further.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.marks.has(CANCELLED)
    }

    pub(crate) fn set_cancelled(&self) {
        self.marks.set(CANCELLED);
    }

    /// Whether the task is to have a scope of its own and has none yet.
    #[inline]
    pub(crate) fn is_apart(&self) -> bool {
        self.state.has(APART)
    }

    pub(crate) fn set_apart(&self) {
        self.state.set(APART);
    }

    /// The task has a scope of its own.
    pub(crate) fn set_own_scope(&self, scope: u32) {
        debug_assert!(!self.is_marked(), "the cancellation is that of the scope");
        self.state.clear(APART);
        self.alone.set(NONE);
        self.scope.set(scope);
    }

    /// Whether the task has waits that have not been released.
    #[inline]
    pub(crate) fn has_waits(&self) -> bool {
        self.waits.get() != NONE
    }

    /// Whether a wait of a task that is apart can do without a scope of its own: it is the only one,
    /// and the task has not been cancelled.
    #[inline]
    pub(crate) fn may_wait_alone(&self) -> bool {
        self.is_apart() && self.alone.get() == NONE
    }

    /// The only wait of a task that is apart.
    #[inline]
    pub(crate) fn lone_wait(&self) -> Option<u32> {
        Some(self.alone.get()).filter(|wait| *wait != NONE && !self.is_marked())
    }

    #[inline]
    pub(crate) fn set_lone_wait(&self, wait: u32) {
        debug_assert!(
            self.may_wait_alone(),
            "a wait that is alone is the only one"
        );
        self.alone.set(wait);
    }

    /// The wait is not one of the task any more.
    #[inline]
    pub(crate) fn end_lone_wait(&self, wait: u32) {
        if self.alone.get() == wait && !self.is_marked() {
            self.alone.set(NONE);
        }
    }

    /// Whether the task has been cancelled by itself while it was apart.
    #[inline]
    pub(crate) fn is_marked(&self) -> bool {
        self.state.has(MARKED)
    }

    /// The task is cancelled by itself, and has no scope of its own.
    pub(crate) fn mark(&self, cause: Cause) {
        debug_assert!(
            self.is_apart() && !self.is_marked(),
            "a task is marked once"
        );
        self.state.set(MARKED);
        self.alone.set(cause.into_number());
    }

    /// Why the task is marked, which it is no more.
    #[inline]
    pub(crate) fn take_mark(&self) -> Option<Cause> {
        self.is_marked().then(|| {
            self.state.clear(MARKED);
            Cause::from_number(self.alone.replace(NONE))
        })
    }

    /// Calls `f` with why the task is marked, if it is.
    pub(crate) fn with_mark<R>(&self, f: impl FnOnce(&Cause) -> R) -> Option<R> {
        let marked = self.is_marked();
        marked.then(|| f(&Cause::from_number(self.alone.get())))
    }

    /// Whether the node stands among siblings.
    pub(crate) fn is_listed(&self) -> bool {
        self.marks.has(LISTED)
    }

    /// Whether the node, which has been polled, is to be polled again in the next turn.
    #[inline]
    pub(crate) fn is_again(&self) -> bool {
        self.state.has(AGAIN)
    }

    /// Whether the node stands in a ready queue.
    pub(crate) fn is_ready(&self) -> bool {
        self.state.has(READY)
    }

    /// No wake has an effect from now on.
    pub(crate) fn set_done(&self) {
        self.state.set(DONE);
    }

    /// The place where the task was spawned, or the nursery was opened.
    pub(crate) fn place(&self) -> &'static Location<'static> {
        self.info.place
    }

    /// Notes the wait of a task that joins this one.
    pub(crate) fn set_joiner(&self, wait: Option<u32>) {
        self.joiner.set(wait.unwrap_or(NONE));
    }

    pub(crate) fn take_joiner(&self) -> Option<u32> {
        Some(self.joiner.replace(NONE)).filter(|wait| *wait != NONE)
    }

    pub(crate) fn locals(&self) -> Option<Rc<Locals>> {
        let locals = self.locals.take();
        self.locals.set(locals.clone());
        locals
    }

    pub(crate) fn replace_locals(&self, locals: Option<Rc<Locals>>) -> Option<Rc<Locals>> {
        self.locals.replace(locals)
    }

    /// The address of the node, which tells living nodes apart.
    pub(crate) fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Moves the node to another nursery, or to none.
    pub(crate) fn set_home(&self, home: Option<NurseryRef>) {
        debug_assert!(!self.is_body(), "a body stays where it is");
        self.set_around(home.map(|home| home.0));
    }

    #[inline]
    fn around(&self) -> Option<NodeRef> {
        // SAFETY: the cell is written by `set_around` only, which keeps no reference into it and
        // calls nobody while it writes; and cloning a handle calls nobody either.
        unsafe { &*self.around.get() }.clone()
    }

    fn set_around(&self, around: Option<NodeRef>) {
        // SAFETY: no reference into the cell lives on: `around` clones at once, and
        // `schedule_owned` copies the pointer.
        let before = unsafe { self.around.get().replace(around) };
        // The old one may go with its last handle: only now, when the cell is whole again.
        drop(before);
    }

    /// Prefetches the node, which is going to be woken.
    #[inline]
    pub(crate) fn foresee(&self) {
        prefetch(self, std::mem::offset_of!(Self, locals));
    }

    /// Prefetches its future, which is going to be polled, once the node itself is there.
    #[inline]
    pub(crate) fn foresee_poll(&self) {
        let cell = std::ptr::from_ref(self).cast::<u8>();
        let (begin, end) = (size_of::<Self>(), self.vtable.size.min(FORESEEN));
        prefetch(cell.wrapping_add(begin), end.saturating_sub(begin));
    }

    /// How many wakers of this node exist anywhere; `None` if there never was one besides those that are
    /// lent to a poll.
    pub(crate) fn wakers(&self) -> Option<usize> {
        let remote = self.remote.load(Ordering::Acquire);
        if remote.is_null() {
            return None;
        }
        // SAFETY: the pointer came from `into_raw` (`remote`), and the node holds a count of it until
        // it is freed, which `&self` excludes. That count stays the node's: nothing is dropped here.
        let remote = ManuallyDrop::new(unsafe { Arc::from_raw(remote) });
        Some(Arc::strong_count(&remote) - 1)
    }

    /// Takes back that it [has asked](Self::is_again) to be polled again; returns whether that is
    /// still to be seen to: not if it has been woken besides, or has ended.
    #[inline]
    pub(crate) fn take_again(&self) -> bool {
        self.state.clear(AGAIN);
        !self.state.has(READY | DONE)
    }

    /// The name that the task was given, or that of its type.
    pub(crate) fn name(&self) -> Cow<'static, str> {
        match &self.info.name {
            Some(name) => name.clone(),
            None => tidy_type_name((self.vtable.type_name)()).into(),
        }
    }

    /// Tells this name from others without working it out: its address and length, or the table that knows
    /// the type. `None` if the name was made at run time, because the next may be made in the same place.
    #[inline]
    pub(crate) fn called_by(&self) -> Option<(usize, usize)> {
        match &self.info.name {
            None => Some((std::ptr::from_ref(self.vtable).addr(), usize::MAX)),
            Some(Cow::Borrowed(name)) => Some((name.as_ptr().addr(), name.len())),
            Some(Cow::Owned(_)) => None,
        }
    }
}

/// `app::serve::{{closure}}` is the future of `app::serve`.
pub(crate) fn tidy_type_name(name: &'static str) -> &'static str {
    name.trim_end_matches("::{{closure}}")
}

/// A counted handle to a node; stays on the thread of the run.
pub(crate) struct NodeRef(NonNull<Node>);

// What reaches beyond the node, into the cell around it, starts from the pointer of a handle, and each handle
// from that of another: a pointer that was made from a reference to the node is good for the node alone.
impl NodeRef {
    /// A handle that is not counted, and therefore never dropped, to a node that somebody else holds for
    /// as long.
    #[inline]
    fn uncounted(node: NonNull<Node>) -> ManuallyDrop<Self> {
        ManuallyDrop::new(Self(node))
    }

    /// Another counted handle to this node.
    #[inline]
    pub(crate) fn reference(&self) -> Self {
        self.references.set(self.references.get() + 1);
        Self(self.0)
    }

    /// The nursery in whose queue the node goes when it is woken.
    pub(crate) fn home(&self) -> Option<NurseryRef> {
        if self.is_body() {
            return Some(NurseryRef(self.reference()));
        }
        self.around().map(NurseryRef)
    }

    /// Makes the node ready, and whoever has to poll its nursery (rules 1 to 3).
    #[inline]
    pub(crate) fn schedule(&self) {
        if !self.state.has(READY | DONE) {
            self.reference().schedule_owned();
        } else {
            self.state.clear(BEHALF);
        }
    }

    /// Polls with a context whose waker is this node's own.
    #[inline(always)]
    pub(crate) fn with_context<R>(&self, poll: impl FnOnce(&mut Context<'_>) -> R) -> R {
        let data = self.0.cast::<()>().as_ptr();
        // SAFETY: the functions of `LOCAL` keep the contract of `RawWakerVTable` for a pointer to a
        // live node, and `&self` keeps the node alive while the waker exists. They may be called
        // from any thread meanwhile; each says why that is fine.
        let waker = unsafe { Waker::from_raw(RawWaker::new(data, &LOCAL)) };
        let waker = ManuallyDrop::new(waker);
        poll(&mut Context::from_waker(&waker))
    }

    /// Polls the future of a task once, as the `current` node, unless it has ended. Gives its panic, if
    /// there was one. A task that has returned is to be [ended](Self::end). The caller keeps rule 4.
    #[inline(always)]
    pub(crate) fn poll_task(&self, current: &Current) -> std::thread::Result<Poll<Result<()>>> {
        if self.is_done() {
            return Ok(Poll::Pending);
        }
        let cell = self.0.as_ptr().cast::<()>();
        // SAFETY: `vtable` was made for the cell of this node, and knows where its stage is.
        let stage = unsafe { cell.byte_add(self.vtable.stage) };
        let poll = self.vtable.poll;
        self.with_context(|context| {
            // Nothing else in here, so that the frame of the catching is inlined.
            current.during(self, || {
                // SAFETY: the future is at the head of its stage, since the task has not ended.
                // Nobody else is inside the stage: nurseries poll and drop from the one thread of
                // the run, a nursery never while it polls the same node, and nothing is polled
                // after the end.
                unsafe { poll(stage, context) }
            })
        })
    }

    /// Drops the future of a task that has returned, as the `current` node; returns its panic.
    #[inline]
    pub(crate) fn end(&self, current: &Current) -> std::thread::Result<()> {
        self.set_done();
        match self.marks.has(RUNNING) {
            true => current.during(self, || self.drop_future()),
            false => Ok(()),
        }
    }

    /// Drops the future of a task, if it is still there. The caller keeps rule 4.
    #[inline]
    pub(crate) fn drop_future(&self) {
        self.set_done();
        if self.marks.has(RUNNING) {
            // SAFETY: as in `poll_task`; `DONE` excludes a later poll.
            unsafe { (self.vtable.drop_future)(self.0) }
        }
    }

    /// What the nursery knows whose body this node is.
    #[inline]
    pub(crate) fn nursery(&self) -> Option<&Core> {
        let cell = self.0.cast::<NurseryCell>();
        // SAFETY: only the node of a `NurseryCell` has `BODY` (`NurseryRef::new`); the handle keeps the
        // cell alive, and its core is never borrowed mutably.
        self.is_body().then(|| unsafe { &(*cell.as_ptr()).core })
    }

    /// Makes a node ready that has not been so yet, in `home`, where it has just been taken in.
    #[inline]
    pub(crate) fn schedule_first(&self, home: &NurseryRef) {
        if home.is_driven() {
            home.take_ready(self.clone(), Reason::Itself);
        } else {
            self.schedule();
        }
    }

    /// Whether the node stands, for itself, in the queue that `other` is put in when it is woken. So it
    /// is polled before `other`, but for one that stands there already, or an order that is a seed's.
    #[inline]
    pub(crate) fn is_ahead_of(&self, other: &Self) -> bool {
        let ready = self.state.has(READY) && !self.state.has(BEHALF);
        ready && self.home_uncounted() == other.home_uncounted()
    }

    /// As [`NodeRef::schedule`]: the handle goes into the queue.
    fn schedule_owned(self) {
        let mut node = self;
        let mut reason = Reason::Itself;
        while !node.state.has(READY | DONE) {
            let Some(home) = node.home_uncounted() else {
                return;
            };
            let notice = home.notify();
            if matches!(notice, Notice::Others) {
                return node.schedule_watched();
            }
            home.take_ready(node, reason);
            let Notice::Owner = notice else { return };
            let Some(owner) = home.owner() else { return };
            (node, reason) = (owner, Reason::Inside);
        }
    }

    /// As [`NodeRef::home`], by a handle that is not counted, and therefore never dropped. The node keeps
    /// its home alive, and a queue that it stands in keeps the node: so it is good until code of
    /// others is called, which could end the nursery.
    #[inline]
    fn home_uncounted(&self) -> Option<ManuallyDrop<NurseryRef>> {
        let body = if self.is_body() {
            Some(self.0)
        } else {
            // SAFETY: as in `around`; the reference is gone when the pointer has been copied.
            unsafe { &*self.around.get() }.as_ref().map(|body| body.0)
        };
        Some(ManuallyDrop::new(NurseryRef(Self(body?))))
    }

    /// The same in a nursery that others observe: the code of an instrument, or of a waker, may do
    /// anything, so a handle to the nursery is kept.
    #[cold]
    fn schedule_watched(self) {
        let Some(home) = self.home() else { return };
        let node = self.clone();
        home.take_ready(self, Reason::Itself);
        home.instrument_scheduled(&node);
        if let Some(next) = home.notify_watched() {
            next.schedule();
        }
    }
}

impl Deref for NodeRef {
    type Target = Node;

    #[inline]
    fn deref(&self) -> &Node {
        // SAFETY: the handle is counted, and the cell is freed with the last one only.
        unsafe { self.0.as_ref() }
    }
}

impl Clone for NodeRef {
    #[inline]
    fn clone(&self) -> Self {
        self.reference()
    }
}

impl Drop for NodeRef {
    #[inline]
    fn drop(&mut self) {
        let count = self.references.get();
        self.references.set(count - 1);
        if count == 1 {
            self.free();
        }
    }
}

impl NodeRef {
    /// The last handle goes. Not inlined where a handle is dropped, since that is mostly not the
    /// last.
    #[inline(never)]
    fn free(&self) {
        // Handles live on the thread of the run, and no borrowed waker outlives the last of them.
        let remote = self.remote.load(Ordering::Acquire);
        if !remote.is_null() {
            // SAFETY: the pointer is that of the `Arc` that was put here (`remote`), whose count is
            // the node's, and nobody looks at it after this.
            let remote = unsafe { Arc::from_raw(remote) };
            remote.node.store(std::ptr::null_mut(), Ordering::Relaxed);
        }
        let Some(lines) = self.vtable.lines else {
            // SAFETY: this was the last handle, and the cell was made with this table.
            return unsafe { (self.vtable.free)(self.0) };
        };
        // SAFETY: this was the last handle, so nobody looks at the node again. What may be left in the
        // stage behind it is not dropped, as nothing in a union is.
        unsafe { self.0.as_ptr().drop_in_place() };
        // SAFETY: the cell was written into a block of so many lines (`Typed::place`), and has gone.
        unsafe { give_block(self.0.cast(), lines) };
    }
}

impl PartialEq for NodeRef {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

/// A counted handle to a nursery, through the node of its body.
#[derive(Clone, PartialEq)]
pub(crate) struct NurseryRef(NodeRef);

impl NurseryRef {
    /// A nursery in a cell of its own.
    pub(crate) fn new(shared: &Arc<Shared>, core: Core, info: TaskInfo) -> Self {
        let node = Node::new(&NURSERY, shared, BODY, 0, Birth::default(), info);
        let cell = Box::leak(Box::new(NurseryCell { node, core }));
        Self(NodeRef(NonNull::from(cell).cast()))
    }

    /// The nursery whose body `node` is.
    pub(crate) fn of_body(node: NodeRef) -> Option<Self> {
        node.is_body().then_some(Self(node))
    }

    /// The node in whose poll the nursery is polled.
    #[inline]
    pub(crate) fn owner(&self) -> Option<NodeRef> {
        self.0.around()
    }

    pub(crate) fn set_owner(&self, owner: Option<NodeRef>) {
        self.0.set_around(owner);
    }

    /// Whether the owner is being polled for nothing but nurseries inside it, in which something is ready.
    #[inline]
    pub(crate) fn is_polled_on_behalf(&self) -> bool {
        // SAFETY: as in `Node::around`; the reference is gone when the flag has been read.
        let owner = unsafe { &*self.0.around.get() };
        owner.as_ref().is_some_and(|owner| owner.state.has(BEHALF))
    }

    /// Has the owner, which is being polled, polled again: whoever polls it sees to that.
    #[inline]
    pub(crate) fn ask_owner_again(&self) {
        // SAFETY: as in `Node::around`; the reference is gone when the flag has been set.
        if let Some(owner) = unsafe { &*self.0.around.get() } {
            owner.state.set(AGAIN);
        }
    }

    /// Makes the body ready as if it had been so for a turn: it takes its first step in the first poll
    /// of its nursery, whenever that is.
    pub(crate) fn begin_body(&self) {
        let before = self.turn().wrapping_sub(1);
        self.take_ready_as_in(before, self.0.clone(), Reason::Itself);
    }

    /// The node of the nursery's body.
    #[inline]
    pub(crate) fn body(&self) -> &NodeRef {
        &self.0
    }
}

impl Deref for NurseryRef {
    type Target = Core;

    #[inline]
    fn deref(&self) -> &Core {
        debug_assert!(
            self.0.is_body(),
            "only the node of a body is in a nursery's cell"
        );
        let cell = self.0.0.cast::<NurseryCell>();
        // SAFETY: handles of this type are made from the node of a `NurseryCell` only (`new`, and
        // elsewhere from a node with `BODY`, which only `new` sets); the handle keeps the cell
        // alive, and its core is never borrowed mutably.
        unsafe { &(*cell.as_ptr()).core }
    }
}

static NURSERY: VTable = VTable {
    type_name: || "nursery",
    stage: 0,
    size: size_of::<NurseryCell>(),
    poll: |_, _| unreachable!("a nursery polls its body itself"),
    drop_future: |_| {},
    take_output: |_, _| unreachable!("a body has no output in its node"),
    lines: None,
    // SAFETY: called once, with the node of a `NurseryCell` that came from a box (`NurseryRef::new`).
    free: |node| drop(unsafe { Box::from_raw(node.cast::<NurseryCell>().as_ptr()) }),
};

/// Who wants the output of a task: nobody, or the holder of an [`Output`].
pub(crate) struct Output<T> {
    node: NodeRef,
    output: std::marker::PhantomData<T>,
}

impl<T> Output<T> {
    pub(crate) fn node(&self) -> &NodeRef {
        &self.node
    }

    /// The output, once, when the task has ended well.
    #[inline]
    pub(crate) fn take(&self) -> Option<T> {
        if !self.node.marks.has(FINISHED) {
            return None;
        }
        let mut slot: Option<T> = None;
        let pointer = (&raw mut slot).cast::<()>();
        // SAFETY: the node is that of a `TaskCell<F, T>` with the same `T` (`new_task`), which has an
        // output, the slot is an `Option<T>`, and nobody is inside the stage: a task that has ended
        // is not polled.
        unsafe { (self.node.vtable.take_output)(self.node.0, pointer) };
        slot
    }
}

impl<T> Drop for Output<T> {
    fn drop(&mut self) {
        // The output is dropped here, while what it borrows still lives, and not with the cell.
        self.node.marks.clear(WANTED);
        drop(self.take());
    }
}

/// A task in a cell of its own, and the right to its output.
///
/// # Safety
///
/// Rule 4 of `task/mod.rs`: before anything that `F` borrows ends, the future is dropped by
/// [`NodeRef::drop_future`] or has ended; and the [`Output`] does not outlive what `T` borrows.
pub(crate) unsafe fn new_task<F, T>(
    shared: &Arc<Shared>,
    birth: Birth,
    info: TaskInfo,
    future: F,
) -> Output<T>
where
    F: Future<Output = Result<T>>,
{
    let marks = WANTED | Typed::<F, T>::RUNNING;
    let node = Typed::place(&Typed::<F, T>::KEEPING, shared, marks, birth, info, future);
    Output {
        node: NodeRef(node),
        output: std::marker::PhantomData,
    }
}

/// A task in a cell of its own that returns nothing.
///
/// # Safety
///
/// As for [`new_task`].
pub(crate) unsafe fn new_silent_task<F>(
    shared: &Arc<Shared>,
    birth: Birth,
    info: TaskInfo,
    future: F,
) -> NodeRef
where
    F: Future<Output = Result<()>>,
{
    let marks = Typed::<F, ()>::RUNNING;
    NodeRef(Typed::place(
        &Typed::<F, ()>::SILENT,
        shared,
        marks,
        birth,
        info,
        future,
    ))
}

struct Typed<F, T>(std::marker::PhantomData<(F, T)>);

impl<F: Future<Output = Result<()>>> Typed<F, ()> {
    /// For a task whose output nobody wants: the future is polled without a frame in between, since
    /// nested nurseries pay for each frame on each wake.
    const SILENT: VTable = VTable {
        poll: Self::POLL,
        ..Self::KEEPING
    };

    const POLL: Poller = {
        let poll: Own<F> = F::poll;
        // SAFETY: the two types of functions have the same ABI: `Pin` is transparent, and a
        // reference to something sized is passed as a raw pointer is. What the callee relies on,
        // that the pointer is to a future that is pinned and nobody else's, whoever calls it vouches
        // for (`poll_task`).
        unsafe { std::mem::transmute::<Own<F>, Poller>(poll) }
    };
}

impl<F: Future<Output = Result<T>>, T> Typed<F, T> {
    const KEEPING: VTable = VTable {
        type_name: std::any::type_name::<F>,
        stage: std::mem::offset_of!(TaskCell<F, T>, stage),
        size: size_of::<TaskCell<F, T>>(),
        poll: Self::poll_and_keep,
        drop_future: Self::drop_future,
        take_output: Self::take_output,
        lines: Self::LINES,
        free: Self::free,
    };

    /// The flag of a task whose future has something to drop.
    const RUNNING: u8 = if std::mem::needs_drop::<F>() {
        RUNNING
    } else {
        0
    };

    /// Of what size the block of a cell is, if it is one of those that are kept.
    const LINES: Option<usize> = {
        let lines = size_of::<TaskCell<F, T>>().div_ceil(size_of::<Line>());
        let fits = align_of::<TaskCell<F, T>>() <= align_of::<Line>();
        if fits { Some(lines) } else { None }
    };

    /// A cell on the heap. Its two parts are written where they are to be, and made when there is a
    /// place for them: a future may be large, and a node that is copied as soon as it has been
    /// written waits for its own stores.
    #[inline(always)]
    fn place(
        table: &'static VTable,
        shared: &Arc<Shared>,
        marks: u8,
        birth: Birth,
        info: TaskInfo,
        future: F,
    ) -> NonNull<Node> {
        let stage = UnsafeCell::new(Stage {
            future: ManuallyDrop::new(future),
        });
        let Some(lines) = Self::LINES else {
            let node = Node::new(table, shared, 0, marks, birth, info);
            return NonNull::from(Box::leak(Box::new(TaskCell { node, stage }))).cast();
        };
        let block = take_block(lines);
        let place = block.cast::<TaskCell<F, T>>().as_ptr();
        // SAFETY: the block is as large and as aligned as a cell (`LINES`), and nobody else's.
        let head = unsafe { &raw mut (*place).node };
        // SAFETY: the same.
        let tail = unsafe { &raw mut (*place).stage };
        // SAFETY: a place inside the block.
        unsafe { head.write(Node::new(table, shared, 0, marks, birth, info)) };
        // SAFETY: the same.
        unsafe { tail.write(stage) };
        block.cast()
    }

    /// The stage of a cell, in which the future and the output begin at the same place.
    ///
    /// # Safety
    ///
    /// `node` is that of a live `TaskCell<F, T>`.
    unsafe fn stage(node: NonNull<Node>) -> *mut Stage<F, T> {
        let cell = node.cast::<TaskCell<F, T>>().as_ptr();
        // SAFETY: the caller vouches for the cell.
        unsafe { (*cell).stage.get() }
    }

    /// # Safety
    ///
    /// `stage` is that of a cell whose task has not ended, and nobody else is inside it.
    unsafe fn poll_and_keep(stage: *mut (), context: &mut Context<'_>) -> Poll<Result<()>> {
        // SAFETY: the future is at the head of the stage, and nobody else is inside it.
        let future = unsafe { &mut *stage.cast::<F>() };
        // SAFETY: the future stays in its cell on the heap until it is dropped there.
        let future = unsafe { Pin::new_unchecked(future) };
        let output = std::task::ready!(future.poll(context));
        // SAFETY: a stage lies so far behind the node of its cell.
        let cell = unsafe { stage.byte_sub(std::mem::offset_of!(TaskCell<F, T>, stage)) };
        // SAFETY: it is inside the cell.
        let node = unsafe { NonNull::new_unchecked(cell.cast::<Node>()) };
        // SAFETY: the node lives as long as the cell.
        let head = unsafe { node.as_ref() };
        head.set_done();
        // SAFETY: it is the node of this cell, whose future has ended; its place is for the output.
        unsafe { Self::drop_future(node) };
        let value = match output {
            Ok(value) => value,
            Err(error) => return Poll::Ready(Err(error)),
        };
        // Looked at only now: the future may have held the handle, and dropped it.
        if head.marks.has(WANTED) {
            // SAFETY: the stage has room for an output, and neither a future nor an output in it.
            unsafe { stage.cast::<T>().write(value) };
            head.marks.set(FINISHED);
        }
        Poll::Ready(Ok(()))
    }

    unsafe fn drop_future(node: NonNull<Node>) {
        // SAFETY: the caller vouches for the node.
        let head = unsafe { node.as_ref() };
        if head.marks.has(RUNNING) {
            // First, so that a future that panics when it is dropped is not dropped again.
            head.marks.clear(RUNNING);
            // SAFETY: passed on.
            let stage = unsafe { Self::stage(node) };
            // SAFETY: the future was there, and nobody is going to look at it any more.
            unsafe { stage.cast::<F>().drop_in_place() };
        }
    }

    unsafe fn take_output(node: NonNull<Node>, slot: *mut ()) {
        // SAFETY: the caller vouches for the node.
        let head = unsafe { node.as_ref() };
        head.marks.clear(FINISHED);
        // SAFETY: passed on.
        let stage = unsafe { Self::stage(node) };
        // SAFETY: the caller vouches for the output, and from now on it is the caller's.
        let value = unsafe { stage.cast::<T>().read() };
        // SAFETY: the caller vouches that an `Option<T>` is behind the pointer.
        unsafe { *slot.cast::<Option<T>>() = Some(value) };
    }

    unsafe fn free(node: NonNull<Node>) {
        let cell = node.cast::<TaskCell<F, T>>();
        // SAFETY: the last handle has gone, and a cell that is not in a block of lines came from a box
        // in `place`. What may be left in the stage is not dropped, as nothing in a union is.
        drop(unsafe { Box::from_raw(cell.as_ptr()) });
    }
}

// Blocks of memory.
//
// A server begins a task a connection and ends one a connection, of the same few types. A general
// allocator takes longer over the two than the rest of spawning and ending does, and longer still when
// a thousand end at once. So what is freed is kept on its thread, by size, up to a bound, as long as
// the thread is in a run. It goes with the run (`clear_blocks`) and not with the thread, for a
// thread-local value that is dropped has to be asked each time whether it has been. What a handle
// leaves that outlives the run goes back to the general allocator at once.
//
// Under AddressSanitizer a block that is kept is poisoned, all of it, so that a touch of what was freed
// is found; and every other block is freed, for one that has been given out again cannot be poisoned,
// while the sanitizer holds back what is freed for long.

/// A piece of a block; aligned as what the general allocator gives.
#[repr(align(16))]
struct Line(#[expect(dead_code, reason = "it is a size")] [u8; 32]);

/// Blocks of more lines are not kept.
const LINES_MAX: usize = 32;

/// Of blocks of one size so many lines are kept.
const LINES_KEPT: usize = 256 * 1024 / size_of::<Line>();

/// The blocks of one size that are kept, each with the next at its head.
struct Kept {
    first: Cell<Option<NonNull<Spare>>>,
    count: Cell<usize>,
}

struct Spare {
    next: Option<NonNull<Self>>,
}

thread_local! {
    /// By the number of lines, from one. Nothing is in it while the thread is in no run.
    static KEPT: [Kept; LINES_MAX] = const {
        [const { Kept { first: Cell::new(None), count: Cell::new(0) } }; LINES_MAX]
    };
}

/// A block of so many lines, at least one; it is the caller's.
#[inline(always)]
fn take_block(lines: usize) -> NonNull<()> {
    let kept = KEPT.with(|kept| kept.get(lines - 1)?.pop(lines));
    kept.unwrap_or_else(|| NonNull::from(Box::leak(Box::<[Line]>::new_uninit_slice(lines))).cast())
}

/// Keeps a block for the next, or frees it.
///
/// # Safety
///
/// It came from [`take_block`] with as many lines, and nobody looks at it any more.
#[inline]
unsafe fn give_block(block: NonNull<()>, lines: usize) {
    let kept = !cfg!(asan) || block.addr().get() / size_of::<Line>() % 2 == 0;
    if kept && context::is_running() {
        let kept = KEPT.with(|kept| {
            let kept = kept.get(lines - 1);
            let kept = kept.filter(|kept| kept.count.get() * lines < LINES_KEPT);
            // SAFETY: passed on; it is the list of this size.
            kept.map(|kept| unsafe { kept.push(block, lines) })
        });
        if kept.is_some() {
            return;
        }
    }
    // SAFETY: passed on.
    unsafe { free_block(block, lines) }
}

/// # Safety
///
/// As for [`give_block`].
#[inline(never)]
unsafe fn free_block(block: NonNull<()>, lines: usize) {
    let lines =
        std::ptr::slice_from_raw_parts_mut(block.cast::<MaybeUninit<Line>>().as_ptr(), lines);
    // SAFETY: the block was a box of so many lines (`take_block`), and nobody looks at it any more.
    drop(unsafe { Box::from_raw(lines) });
}

/// Frees what is kept: the thread leaves its run.
pub(crate) fn clear_blocks() {
    KEPT.with(|kept| {
        for (index, kept) in kept.iter().enumerate() {
            while let Some(block) = kept.pop(index + 1) {
                // SAFETY: what is in the list of this size is a block that was given, and now it is
                // not in the list any more.
                unsafe { free_block(block, index + 1) }
            }
        }
    });
}

impl Kept {
    #[inline(always)]
    fn pop(&self, lines: usize) -> Option<NonNull<()>> {
        let first = self.first.get()?;
        poison::lift(first.as_ptr().cast(), lines * size_of::<Line>());
        // SAFETY: a block that is in the list is nobody else's, and `push` has put this at its head.
        self.first.set(unsafe { first.as_ref() }.next);
        self.count.set(self.count.get() - 1);
        Some(first.cast())
    }

    /// # Safety
    ///
    /// The block came from [`take_block`], with as many lines, which is the size of this list, and nobody
    /// looks at it any more.
    #[inline(always)]
    unsafe fn push(&self, block: NonNull<()>, lines: usize) {
        let spare = block.cast::<Spare>();
        let next = self.first.replace(Some(spare));
        // SAFETY: a block has at least one line, which is larger and more aligned than this; and it is
        // nobody else's.
        unsafe { spare.write(Spare { next }) };
        poison::set(spare.as_ptr().cast(), lines * size_of::<Line>());
        self.count.set(self.count.get() + 1);
    }
}

/// Why a node is ready.
#[derive(Clone, Copy)]
pub(crate) enum Reason {
    /// It has been woken, or is new.
    Itself,
    /// Something is ready in a nursery inside it, and nothing else has woken it.
    Inside,
}

/// The nodes of one nursery that are ready to be polled, first in, first out, linked through the
/// nodes themselves. Holds one reference to each.
#[derive(Default)]
pub(crate) struct ReadyQueue {
    head: Cell<Option<NonNull<Node>>>,
    /// The last node; means nothing while there is no head.
    tail: Cell<Option<NonNull<Node>>>,
}

impl ReadyQueue {
    /// Takes in a node that stands in no queue, as woken in `turn` (rules 1 and 3); returns whether
    /// it is the only one.
    #[inline]
    pub(crate) fn push_in(&self, turn: u32, node: NodeRef, reason: Reason) -> bool {
        node.stamp.set(turn);
        match reason {
            Reason::Itself => node.state.clear(BEHALF),
            Reason::Inside => node.state.set(BEHALF),
        }
        self.push(node)
    }

    /// Takes in a node that stands in no queue (rule 1), as woken when and why it was; returns
    /// whether it is the only one.
    #[inline]
    pub(crate) fn push(&self, node: NodeRef) -> bool {
        debug_assert!(!node.is_ready(), "a node stands in one queue, once");
        node.state.set(READY);
        // The reference goes into the queue, and comes out with `pop`.
        let node = ManuallyDrop::new(node).0;
        match (self.head.get(), self.tail.replace(Some(node))) {
            // SAFETY: while there is a head, the tail is the last node of the chain that starts
            // there, and the queue holds a reference to each node in it.
            (Some(_), Some(tail)) => unsafe { tail.as_ref() }.next_ready.set(Some(node)),
            _ => {
                self.head.set(Some(node));
                return true;
            }
        }
        false
    }

    #[inline]
    pub(crate) fn pop(&self) -> Option<NodeRef> {
        // The reference that `push` has put in.
        let node = NodeRef(self.head.get()?);
        self.head.set(node.next_ready.take());
        node.state.clear(READY);
        Some(node)
    }

    /// Whether the next node was woken in another turn than `turn`.
    #[inline]
    pub(crate) fn is_any_woken_before(&self, turn: u32) -> bool {
        // SAFETY: the queue holds a reference to each node in it.
        let head = self.head.get().map(|head| unsafe { head.as_ref() });
        head.is_some_and(|head| head.stamp.get() != turn)
    }

    /// The next node, if it was woken in another turn than `turn`.
    #[inline]
    pub(crate) fn pop_woken_before(&self, turn: u32) -> Option<NodeRef> {
        match self.is_any_woken_before(turn) {
            true => self.pop(),
            false => None,
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head.get().is_none()
    }

    /// Takes every node out; iterative, so that a long queue does not overflow the stack.
    pub(crate) fn clear(&self) {
        while self.pop().is_some() {}
    }
}

impl Drop for ReadyQueue {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Nodes in the order in which they were added, each of which can be taken out at once, linked
/// through the nodes themselves. Holds one reference to each. A node stands in one such list at
/// most: a task among the children of its nursery, a body among the nurseries of the run.
#[derive(Default)]
pub(crate) struct Siblings {
    first: Cell<Option<NonNull<Node>>>,
    last: Cell<Option<NonNull<Node>>>,
    count: Cell<usize>,
}

impl Siblings {
    pub(crate) fn len(&self) -> usize {
        self.count.get()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count.get() == 0
    }

    #[inline]
    pub(crate) fn push(&self, node: &NodeRef) {
        assert!(
            !node.marks.has(LISTED),
            "a node stands in one list of siblings"
        );
        node.marks.set(LISTED);
        let last = self.last.replace(Some(node.0));
        node.previous_sibling.set(last);
        self.link_after(last, Some(node.0));
        self.count.set(self.count.get() + 1);
        // Counted for the list, and dropped by whoever takes it out.
        let _ = ManuallyDrop::new(node.clone());
    }

    /// Takes out `node`, which stands here. Gives the reference that the list has held.
    ///
    /// # Panics
    ///
    /// If it stands in no list, or at the end of another.
    #[inline]
    pub(crate) fn remove(&self, node: &NodeRef) -> NodeRef {
        assert!(node.marks.has(LISTED), "a node is taken out once");
        let previous = node.previous_sibling.get();
        let next = node.next_sibling.get();
        // Without this a list could be left with an end that it does not hold.
        let this = Some(node.0);
        assert!(
            (previous.is_some() || self.first.get() == this)
                && (next.is_some() || self.last.get() == this),
            "a node is taken out of the list that it stands in"
        );
        node.marks.clear(LISTED);
        node.previous_sibling.set(None);
        node.next_sibling.set(None);
        self.link_after(previous, next);
        match next {
            // SAFETY: every node in a list is held by it.
            Some(next) => unsafe { next.as_ref() }.previous_sibling.set(previous),
            None => self.last.set(previous),
        }
        self.count.set(self.count.get() - 1);
        // The reference that `push` has counted; `LISTED` was set, so nobody has had it before.
        NodeRef(node.0)
    }

    /// Takes out the node that was added first.
    pub(crate) fn pop(&self) -> Option<NodeRef> {
        // The list holds every node in it.
        let first = NodeRef::uncounted(self.first.get()?);
        Some(self.remove(&first))
    }

    /// A handle to each.
    pub(crate) fn to_vec(&self) -> Vec<NodeRef> {
        let mut all = Vec::with_capacity(self.count.get());
        let mut next = self.first.get();
        while let Some(node) = next {
            // The list holds every node in it.
            let node = NodeRef::uncounted(node);
            all.push(node.reference());
            next = node.next_sibling.get();
        }
        all
    }

    fn link_after(&self, previous: Option<NonNull<Node>>, node: Option<NonNull<Node>>) {
        match previous {
            // SAFETY: every node in the list is held by it.
            Some(previous) => unsafe { previous.as_ref() }.next_sibling.set(node),
            None => self.first.set(node),
        }
    }
}

impl Drop for Siblings {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

/// The node that is being polled, if one is.
#[derive(Default)]
pub(crate) struct Current(Cell<Option<NonNull<Node>>>);

impl Current {
    /// Calls `poll` with `node` as the one that is being polled, and catches its panic: in one, so
    /// that there is neither a closure around `poll` nor a frame for it.
    #[inline(always)]
    pub(crate) fn during<R>(
        &self,
        node: &NodeRef,
        poll: impl FnOnce() -> R,
    ) -> std::thread::Result<R> {
        let before = self.0.replace(Some(node.0));
        let result = catch_unwind(AssertUnwindSafe(poll));
        self.0.set(before);
        result
    }

    pub(crate) fn get(&self) -> Option<NodeRef> {
        // `during` borrows the handle for as long as its node is the one here, and puts back the one
        // before, for which the same is true of the call around.
        Some(NodeRef::uncounted(self.0.get()?).reference())
    }

    /// Calls `f` with the node that is being polled, or with none if there is none.
    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(Option<&NodeRef>) -> R) -> R {
        // As in `get`, whoever polls has a handle, and polls until after `f`, which is called inside the
        // poll.
        let node = self.0.get().map(NodeRef::uncounted);
        f(node.as_deref())
    }

    /// The values local to the node that is being polled.
    #[inline]
    pub(crate) fn locals(&self) -> Option<Rc<Locals>> {
        let node = self.0.get()?;
        // SAFETY: as in `get`; the reference is gone when the values have been counted, which calls
        // nobody.
        unsafe { node.as_ref() }.locals()
    }

    /// Whether `node` is the one that is being polled.
    #[inline]
    pub(crate) fn is(&self, node: &NodeRef) -> bool {
        self.0.get() == Some(node.0)
    }

    /// Whether `waker` is the current node's own, and not one that a combinator has put in its
    /// place.
    #[inline]
    pub(crate) fn owns(&self, waker: &Waker) -> bool {
        let data = self.0.get().map(|node| node.as_ptr().cast_const().cast());
        data == Some(waker.data()) && is_of_a_node(waker)
    }

    pub(crate) fn is_none(&self) -> bool {
        self.0.get().is_none()
    }

    /// The address of the node that is being polled; zero if none is.
    pub(crate) fn address(&self) -> usize {
        self.0.get().map_or(0, |node| node.addr().get())
    }
}

/// A node as other threads know it: alive as long as any cloned waker, while the node may be gone.
pub(crate) struct Remote {
    shared: Arc<Shared>,
    /// Null once the node is gone. Read and written on the thread of the run only.
    node: AtomicPtr<Node>,
    /// Whether it stands in the inbox already.
    queued: Queued,
}

impl Remote {
    /// Schedules the node, if it still lives; to be called on the thread of the run.
    fn schedule_here(&self) {
        // This is the thread of the run, on which alone nodes are freed, and a node that is freed clears
        // the pointer first.
        if let Some(node) = NonNull::new(self.node.load(Ordering::Relaxed)) {
            NodeRef::uncounted(node).schedule();
        }
    }

    /// Takes the wake of another thread out of the inbox.
    pub(crate) fn deliver(&self) {
        // Before the node is polled: a wake that comes later must be queued anew.
        self.queued.release();
        self.schedule_here();
    }
}

impl Wake for Remote {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if context::is_current(Arc::as_ptr(&self.shared)) {
            self.schedule_here();
        } else if self.queued.claim() {
            self.shared.post(self.clone());
        }
    }
}

static LOCAL: RawWakerVTable = RawWakerVTable::new(local_clone, local_wake, local_wake, local_drop);

/// Whether `waker` is one that a node lends to its poll. Its data alone do not tell: others may put their
/// functions around those of a waker and leave the data as they are.
#[inline]
pub(crate) fn is_of_a_node(waker: &Waker) -> bool {
    std::ptr::eq(waker.vtable(), &raw const LOCAL)
}

/// The remote of the node behind `data`, made now if it is the first.
///
/// # Safety
///
/// `data` is a node that is alive, and is being polled on the thread of its run. May be called from
/// any thread: only fields that never change, and one that is synchronised, are touched.
unsafe fn remote(data: *const ()) -> Arc<Remote> {
    let node = data.cast::<Node>();
    // SAFETY: the caller vouches for the node; the field is synchronised.
    let cell = unsafe { &(*node).remote };
    let mut remote = cell.load(Ordering::Acquire);
    if remote.is_null() {
        // SAFETY: the field never changes.
        let shared = unsafe { (*node).shared };
        // SAFETY: a node is polled only while its run is running, which holds the `Arc` that the
        // pointer came from.
        unsafe { Arc::increment_strong_count(shared) };
        // SAFETY: the count that was just added is this handle's.
        let shared = unsafe { Arc::from_raw(shared) };
        let made = Arc::into_raw(Arc::new(Remote {
            shared,
            node: AtomicPtr::new(node.cast_mut()),
            queued: Queued::default(),
        }));
        let none = std::ptr::null_mut();
        let order = (Ordering::AcqRel, Ordering::Acquire);
        remote = match cell.compare_exchange(none, made.cast_mut(), order.0, order.1) {
            Ok(_) => made.cast_mut(),
            Err(other) => {
                // SAFETY: the pointer came from `into_raw` just now, and nobody else has seen it.
                drop(unsafe { Arc::from_raw(made) });
                other
            }
        };
    }
    // SAFETY: the pointer came from `into_raw`, and the node holds a count until it is freed.
    unsafe { Arc::increment_strong_count(remote) };
    // SAFETY: the count that was just added is this handle's.
    unsafe { Arc::from_raw(remote) }
}

unsafe fn local_clone(data: *const ()) -> RawWaker {
    // SAFETY: the waker is borrowed, so the node is alive and being polled.
    let remote = unsafe { remote(data) };
    let waker = ManuallyDrop::new(Waker::from(remote));
    RawWaker::new(waker.data(), waker.vtable())
}

unsafe fn local_wake(data: *const ()) {
    let node = data.cast::<Node>();
    // SAFETY: the waker is borrowed, so the node is alive; the field never changes.
    let shared = unsafe { (*node).shared };
    if context::is_current(shared) {
        // SAFETY: the data of a waker of a node are its address, which is not null.
        let node = unsafe { NonNull::new_unchecked(node.cast_mut()) };
        // It is alive, as above, and this is the thread of its run.
        NodeRef::uncounted(node).schedule();
    } else {
        // SAFETY: the waker is borrowed, so the node is alive and being polled.
        unsafe { remote(data) }.wake();
    }
}

unsafe fn local_drop(_: *const ()) {}

#[cfg(all(test, not(loom)))]
mod tests {
    //! What only a table of functions made by hand can show: that a clone of a waker runs code of others.

    use std::cell::RefCell;
    use std::future::poll_fn;
    use std::net::SocketAddr;
    use std::pin::pin;
    use std::ptr;
    use std::time::Duration;

    use trio_platform::Descriptor;
    use trio_platform::sim::Simulation;

    use super::*;
    use crate::error::{ClosedResource, Error};
    use crate::lowlevel::{Abort, Reschedule, cancel_shielded_checkpoint, cancellable};
    use crate::lowlevel::{
        Connect, Family, Gate, Handle, Receive, accept, receive, socket, submit,
    };
    use crate::lowlevel::{current_statistics, task_tree, wait_task_rescheduled};
    use crate::sync::{CapacityLimiter, Event, Lock, Semaphore};
    use crate::{Backend, Builder, CancelScope, RateLimiter, channel, current_effective_deadline};
    use crate::{open_nursery, select, sleep, sleep_forever};

    thread_local! {
        /// How often such a waker has been cloned on this thread.
        static CLONES: Cell<u32> = const { Cell::new(0) };
    }

    /// The functions of a waker that looks at the run when it is cloned, called or dropped.
    static NOSY: RawWakerVTable = RawWakerVTable::new(clone, look, look, look);

    fn clone(data: *const ()) -> RawWaker {
        CLONES.set(CLONES.get() + 1);
        look(data);
        RawWaker::new(data, &NOSY)
    }

    /// Looks at whatever a task may look at, the driver too, and cancels.
    fn look(_: *const ()) {
        assert_eq!(task_tree().name, "main");
        assert!(current_statistics().tasks_living < 10);
        let _ = current_effective_deadline();
        CancelScope::new().cancel("which nobody has entered");
    }

    /// Has what `make` makes wait with such a waker: at first, and after it has waited with the task's.
    async fn check<F: Future>(what: &str, make: impl FnOnce() -> F) {
        // SAFETY: the functions may be called from any thread, as often as one likes and in any order:
        // they touch no data, but only what is local to the thread, and panic where that is no run.
        let nosy = unsafe { Waker::new(ptr::null(), &NOSY) };
        let mut waiting = pin!(make());
        for _ in 0..2 {
            let before = CLONES.get();
            let polled = waiting.as_mut().poll(&mut Context::from_waker(&nosy));
            assert!(polled.is_pending(), "{what}");
            assert!(CLONES.get() > before, "{what}: it is kept by a clone");
            poll_fn(|own| {
                assert!(waiting.as_mut().poll(own).is_pending(), "{what}");
                Poll::Ready(())
            })
            .await;
        }
    }

    /// Fills a block with its number, to be found there again.
    fn fill(block: NonNull<()>, lines: usize, number: u8) {
        // SAFETY: the block has so many lines, and is the caller's.
        unsafe { block.cast::<Line>().write_bytes(number, lines) }
    }

    fn is_filled(block: NonNull<()>, lines: usize, number: u8) -> bool {
        let (begin, length) = (block.cast::<u8>().as_ptr(), lines * size_of::<Line>());
        // SAFETY: the block has so many lines, all of which have been filled, and nobody writes them.
        let bytes = unsafe { std::slice::from_raw_parts(begin, length) };
        bytes.iter().all(|byte| *byte == number)
    }

    fn kept_blocks() -> Vec<usize> {
        KEPT.with(|kept| kept.iter().map(|kept| kept.count.get()).collect())
    }

    #[test]
    fn blocks_that_are_kept_are_given_out_once_and_go_with_the_run() {
        crate::run(async {
            // A generator of numbers that look like chance.
            let mut state = 7_u64;
            let mut next = move |below: usize| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
                usize::try_from(state >> 33).unwrap() % below
            };
            let mut living = Vec::new();
            let mut reused = 0;
            for number in 0..20_000 {
                let number = (number % 251) as u8;
                if next(2) == 0 {
                    // Beyond what is kept, too.
                    let lines = 1 + next(LINES_MAX + 2);
                    let before: usize = kept_blocks().iter().sum();
                    let block = take_block(lines);
                    reused += before - kept_blocks().iter().sum::<usize>();
                    fill(block, lines, number);
                    living.push((block, lines, number));
                } else if !living.is_empty() {
                    let (block, lines, number) = living.swap_remove(next(living.len()));
                    assert!(is_filled(block, lines, number), "nobody else has had it");
                    // SAFETY: it was taken with as many lines, and is in the list no more.
                    unsafe { give_block(block, lines) };
                }
            }
            assert!(reused > 1000, "{reused}");
            for (block, lines, number) in living {
                assert!(is_filled(block, lines, number), "nobody else has had it");
                // SAFETY: the same.
                unsafe { give_block(block, lines) };
            }
            // Up to a bound.
            let many: Vec<_> = (0..2 * LINES_KEPT).map(|_| take_block(1)).collect();
            for block in many {
                // SAFETY: the same, with one line.
                unsafe { give_block(block, 1) };
            }
            for (index, count) in kept_blocks().into_iter().enumerate() {
                assert!(count * (index + 1) < LINES_KEPT + index + 1, "{count}");
            }
        });
        assert!(kept_blocks().iter().all(|count| *count == 0));
    }

    #[test]
    fn r4_a_waker_of_others_is_cloned_while_nothing_of_the_run_is_borrowed() {
        let builders = [
            Builder::new().backend(Backend::IoUring),
            Builder::new().backend(Backend::Polling),
            Builder::new().simulation(Simulation::new(1)),
        ];
        for builder in builders {
            builder.run(wait_for_everything()).unwrap();
        }
    }

    async fn wait_for_everything() -> Result<()> {
        let long = Duration::from_secs(3600);
        check("sleep", || sleep(long)).await;
        check("sleep_forever", sleep_forever).await;
        let event = Event::new();
        check("Event", || event.wait()).await;
        let lock = Lock::new(());
        let _held = lock.try_acquire()?;
        check("Lock", || lock.acquire()).await;
        let nursery = || {
            open_nursery(async |nursery| {
                nursery.start_soon(sleep_forever());
                Ok(())
            })
        };
        check("a nursery", nursery).await;
        let within = || CancelScope::with_timeout(long).enter(sleep_forever());
        check("a scope", within).await;

        let (send, receive_from) = channel::open_memory_channel::<u8>(0);
        check("receive", || receive_from.receive()).await;
        check("send", || send.send(1)).await;
        let choose = || select((receive_from.receive(), sleep(long), event.wait()));
        check("select", choose).await;
        let (_send, receive_from) = channel::open_thread_channel::<u8>(1);
        check("receive from a thread", || receive_from.receive()).await;
        check("select from a thread", || {
            select((receive_from.receive(), sleep(long)))
        })
        .await;
        let (_send, mut gauge) = channel::open_watch_channel(0);
        check("watch", || gauge.changed()).await;
        let (_send, mut receive_from) = channel::open_broadcast_channel::<u8>(1);
        check("broadcast", || receive_from.receive()).await;

        // What waits for the driver.
        let local: SocketAddr = ([127, 0, 0, 1], 0).into();
        let listening = socket::stream(Family::of(&local))?;
        socket::bind(&listening, &local, false)?;
        socket::listen(&listening, 16)?;
        let address = socket::local_address(&listening)?;
        let (listener, gate) = (Handle::new(listening), Gate::default());
        check("accept", || accept(&listener, &gate)).await;
        let connect = Connect::new(socket::stream(Family::of(&address))?, address);
        let connection = submit(connect).await?.into_connected()?;
        let (connection, gate) = (Handle::new(connection), Gate::default());
        check("receive", || receive(&connection, &gate)).await;
        Ok(())
    }

    type Deed = Box<dyn FnOnce()>;

    thread_local! {
        /// What the next clone of a [`MEDDLING`] waker does.
        static DEED: RefCell<Option<Deed>> = const { RefCell::new(None) };
        /// How often such a waker has been called.
        static WOKEN: Cell<u32> = const { Cell::new(0) };
    }

    /// The functions of a waker that does something when it is cloned, and counts how often it is called.
    static MEDDLING: RawWakerVTable = RawWakerVTable::new(meddle, count, count, |_| ());

    fn meddle(data: *const ()) -> RawWaker {
        if let Some(deed) = DEED.take() {
            deed();
        }
        RawWaker::new(data, &MEDDLING)
    }

    fn count(_: *const ()) {
        WOKEN.set(WOKEN.get() + 1);
    }

    /// A waker with these functions and the data that another one has.
    fn meddling(data: *const ()) -> Waker {
        // SAFETY: the functions may be called from any thread, as often as one likes and in any order:
        // they do not look at the data, and touch only what is local to the thread.
        unsafe { Waker::new(data, &MEDDLING) }
    }

    /// Polls `make`'s future with such a waker that does `deed` when it is cloned, `first` or after it
    /// has waited with the task's own; and then whenever it has been called, until it is ready.
    async fn poll_meddling<F: Future>(
        what: &str,
        first: bool,
        make: impl FnOnce() -> F,
        deed: impl FnOnce() + 'static,
    ) -> F::Output {
        let waker = meddling(ptr::null());
        let mut waiting = pin!(make());
        if !first {
            poll_fn(|own| {
                assert!(waiting.as_mut().poll(own).is_pending(), "{what}");
                Poll::Ready(())
            })
            .await;
        }
        DEED.set(Some(Box::new(deed)));
        WOKEN.set(0);
        let mut turns = 0;
        loop {
            let polled = waiting.as_mut().poll(&mut Context::from_waker(&waker));
            assert!(DEED.with_borrow(Option::is_none), "{what}: it is cloned");
            if let Poll::Ready(output) = polled {
                return output;
            }
            while WOKEN.replace(0) == 0 {
                turns += 1;
                assert!(turns < 1000, "{what}: whoever polls is told");
                cancel_shielded_checkpoint().await;
            }
        }
    }

    /// Has the clone cancel the scope that its own wait is in.
    async fn cancel_by_clone<T, E: Into<Error>, F: Future<Output = Result<T, E>>>(
        what: &str,
        make: impl Fn() -> F,
    ) {
        for first in [true, false] {
            let scope = CancelScope::new();
            let cancels = scope.clone();
            let around = CancelScope::new();
            let waiting = around.enter(scope.enter(async {
                let deed = move || cancels.cancel("by a clone");
                match poll_meddling(what, first, &make, deed).await {
                    Ok(_) => panic!("{what}: there is nothing"),
                    Err(error) => Err::<(), Error>(error.into()),
                }
            }));
            let caught = waiting.await;
            assert!(matches!(caught, Ok(Some(None))), "{what}: {caught:?}");
        }
    }

    fn on_every_driver<F: Future<Output = Result<()>>>(test: impl Fn() -> F) {
        let builders = [
            Builder::new().backend(Backend::IoUring),
            Builder::new().backend(Backend::Polling),
            Builder::new().simulation(Simulation::new(1)),
        ];
        for builder in builders {
            builder.run(test()).expect("the test has its say");
        }
    }

    /// A listener, a connection to it, and the other side of that.
    async fn listener_and_connection() -> Result<(Handle, Handle, Descriptor)> {
        let local: SocketAddr = ([127, 0, 0, 1], 0).into();
        let listening = socket::stream(Family::of(&local))?;
        socket::bind(&listening, &local, false)?;
        socket::listen(&listening, 16)?;
        let address = socket::local_address(&listening)?;
        let connect = Connect::new(socket::stream(Family::of(&address))?, address);
        let connection = submit(connect).await?.into_connected()?;
        let listener = Handle::new(listening);
        let other = accept(&listener, &Gate::default()).await?;
        Ok((listener, Handle::new(connection), other))
    }

    #[test]
    fn r4_a_clone_of_a_waker_may_cancel_the_wait_that_it_is_made_for() {
        on_every_driver(|| async {
            let long = Duration::from_secs(3600);
            cancel_by_clone("sleep", || sleep(long)).await;
            cancel_by_clone("sleep_forever", sleep_forever).await;
            let event = Event::new();
            cancel_by_clone("Event", || event.wait()).await;
            let lock = Lock::new(());
            let held = lock.try_acquire()?;
            cancel_by_clone("Lock", || lock.acquire()).await;
            drop(held);
            assert!(lock.try_acquire().is_ok(), "nobody is in line");
            let semaphore = Semaphore::new(0);
            cancel_by_clone("Semaphore", || semaphore.acquire()).await;
            let limiter = CapacityLimiter::new(0);
            cancel_by_clone("CapacityLimiter", || limiter.acquire()).await;
            let slow = RateLimiter::new(1, long);
            assert!(slow.try_acquire());
            cancel_by_clone("RateLimiter", || slow.acquire()).await;
            let (send, receive) = channel::open_memory_channel::<u8>(0);
            cancel_by_clone("receive", || receive.receive()).await;
            cancel_by_clone("send", || send.send(1)).await;
            let (_send, receive) = channel::open_thread_channel::<u8>(1);
            cancel_by_clone("receive from a thread", || receive.receive()).await;
            let choose = || async { select((event.wait(), sleep(long))).await };
            cancel_by_clone("select", || async { choose().await.map(drop) }).await;
            cancel_by_clone("a future of others", || {
                cancellable(std::future::pending::<()>())
            })
            .await;
            let kept = Cell::new(None);
            let reschedule = || {
                wait_task_rescheduled(|reschedule: Reschedule<()>| {
                    kept.set(Some(reschedule));
                    |_| Abort::Succeeded
                })
            };
            cancel_by_clone("wait_task_rescheduled", reschedule).await;
            Ok(())
        });
    }

    #[test]
    fn r4_an_operation_that_a_clone_of_a_waker_cancels_is_not_submitted() {
        on_every_driver(|| async {
            let (listener, connection, _other) = listener_and_connection().await?;
            let gate = Gate::default();
            cancel_by_clone("accept", || accept(&listener, &gate)).await;
            cancel_by_clone("receive", || receive(&connection, &gate)).await;
            let scope = CancelScope::new();
            let cancels = scope.clone();
            let operation = Receive::new(connection.open()?);
            let before = current_statistics().io_statistics.submitted;
            let outcome = scope.enter(async {
                let waker = meddling(ptr::null());
                DEED.set(Some(Box::new(move || cancels.cancel("by a clone"))));
                match pin!(submit(operation)).poll(&mut Context::from_waker(&waker)) {
                    Poll::Ready(result) => result.map(drop),
                    Poll::Pending => panic!("it is in flight"),
                }
            });
            assert!(outcome.await?.is_none());
            assert_eq!(current_statistics().io_statistics.submitted, before);
            Ok(())
        });
    }

    /// Has the clone let happen what its own wait waits for.
    async fn give_by_clone<T, E: Into<Error>, F: Future<Output = Result<T, E>>>(
        what: &str,
        make: impl Fn() -> F,
        deed: impl Fn() + Clone + 'static,
    ) {
        for first in [true, false] {
            let deed = deed.clone();
            if let Err(error) = poll_meddling(what, first, &make, deed).await {
                panic!("{what}: {}", error.into());
            }
        }
    }

    #[test]
    fn r4_a_clone_of_a_waker_may_give_what_it_is_made_for() {
        crate::run(async {
            for first in [true, false] {
                let event = Rc::new(Event::new());
                let own = event.clone();
                let waiting = poll_meddling("Event", first, || event.wait(), move || own.set());
                waiting.await?;
            }
            let semaphore = Rc::new(Semaphore::new(0));
            let own = semaphore.clone();
            let deed = move || own.release().unwrap();
            give_by_clone(
                "Semaphore",
                || async {
                    semaphore.acquire().await?.forget();
                    Ok::<(), Error>(())
                },
                deed,
            )
            .await;
            let limiter = Rc::new(CapacityLimiter::new(0));
            let own = limiter.clone();
            let deed = move || {
                own.set_total_tokens(1);
                own.set_total_tokens(0);
            };
            give_by_clone("CapacityLimiter", || limiter.acquire(), deed).await;
            let lock: &'static Lock<()> = Box::leak(Box::new(Lock::new(())));
            for first in [true, false] {
                let held = lock.try_acquire()?;
                let deed = move || drop(held);
                drop(poll_meddling("Lock", first, || lock.acquire(), deed).await?);
            }
            let (send, receive) = channel::open_memory_channel::<u8>(1);
            let deed = move || send.try_send(1).unwrap();
            give_by_clone("receive", || receive.receive(), deed).await;
            let (send, receive) = channel::open_memory_channel::<u8>(1);
            let receive = Rc::new(receive);
            send.try_send(0)?;
            let own = receive.clone();
            let deed = move || assert!(own.try_receive().is_ok());
            give_by_clone("send", || send.send(1), deed).await;
            let (send, receive) = channel::open_thread_channel::<u8>(1);
            let deed = move || send.try_send(1).unwrap();
            give_by_clone("receive from a thread", || receive.receive(), deed).await;
            Ok::<(), Error>(())
        })
        .unwrap();
    }

    #[test]
    fn r4_a_clone_of_a_waker_may_close_what_it_is_made_for() {
        on_every_driver(|| async {
            for first in [true, false] {
                let (listener, connection, _other) = listener_and_connection().await?;
                let both = Rc::new([(listener, Gate::default()), (connection, Gate::default())]);
                for which in [0, 1] {
                    let (handle, gate) = &both[which];
                    let own = both.clone();
                    let close = move || {
                        let (handle, gate) = &own[which];
                        gate.close(handle);
                        handle.close();
                    };
                    let error = match which {
                        0 => {
                            let accepting = || accept(handle, gate);
                            poll_meddling("accept", first, accepting, close).await.err()
                        }
                        _ => {
                            let receiving = || receive(handle, gate);
                            poll_meddling("receive", first, receiving, close)
                                .await
                                .err()
                        }
                    };
                    let error = error.expect("it is closed");
                    assert!(error.downcast_ref::<ClosedResource>().is_some(), "{error}");
                }
            }
            Ok(())
        });
    }

    #[test]
    fn r4_a_waker_of_others_is_one_though_it_has_the_data_of_the_task_s_own() {
        crate::run(async {
            let event = Event::new();
            let mut waiting = pin!(event.wait());
            let mut nursery = pin!(open_nursery(async |nursery| {
                nursery.start_soon(async { event.wait().await });
                Ok(())
            }));
            for future in [true, false] {
                poll_fn(|own| {
                    let waker = meddling(own.waker().data());
                    let context = &mut Context::from_waker(&waker);
                    if future {
                        assert!(waiting.as_mut().poll(context).is_pending());
                    } else {
                        // The owner before is this task, by the same data.
                        assert!(nursery.as_mut().poll(own).is_pending());
                        assert!(nursery.as_mut().poll(context).is_pending());
                    }
                    Poll::Ready(())
                })
                .await;
            }
            WOKEN.set(0);
            event.set();
            crate::checkpoint().await?;
            assert!(WOKEN.get() >= 2, "both are told: {}", WOKEN.get());
            waiting.await?;
            nursery.await
        })
        .unwrap();
    }
}
