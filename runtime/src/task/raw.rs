//! The memory of a node: a counted cell of a head, known to everyone, and a future known to nobody.
//!
//! Everything unsafe about tasks is here. The rules at the head of `task/mod.rs` are what the proofs
//! below refer to.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::future::Future;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::panic::Location;
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};

use crate::context::{self, Shared};
use crate::error::Result;
use crate::nursery::Core;

const READY: u8 = 1;
const DONE: u8 = 2;
const BODY: u8 = 4;
/// Somebody may still ask for the output.
const WANTED: u8 = 8;

/// The head of every task and of every nursery's body.
#[repr(C)]
pub(crate) struct Node {
    vtable: &'static VTable,
    /// Of the run; alive as long as anything in the run is polled.
    shared: *const Shared,
    remote: OnceLock<Arc<Remote>>,
    references: Cell<u32>,
    flags: Cell<u8>,
    /// The turn in which the node was woken.
    pub(crate) stamp: Cell<u32>,
    pub(super) next_ready: Cell<Option<NodeRef>>,
    /// The nursery that polls the node. The body's is the nursery that it belongs to, and is not
    /// stored, for it would keep itself alive.
    home: RefCell<Option<NurseryRef>>,
    /// The cancel scope at the root of the node.
    pub(crate) scope: Cell<u32>,
    /// The place of a task among the children of its nursery.
    pub(crate) index: Cell<u32>,
    /// Waits that were registered by this task and not released.
    pub(crate) waits: Cell<u32>,
    /// The wait of a task that joins this one.
    pub(crate) joiner: Cell<Option<u32>>,
    pub(crate) info: TaskInfo,
}

/// What a task is called, and where it was spawned.
pub(crate) struct TaskInfo {
    pub(crate) name: RefCell<Option<Box<str>>>,
    pub(crate) type_name: &'static str,
    pub(crate) place: &'static Location<'static>,
}

struct VTable {
    /// Polls the future once.
    poll: unsafe fn(NonNull<Node>, &mut Context<'_>) -> Poll<Result<()>>,
    /// Drops the future, if it is there.
    drop_future: unsafe fn(NonNull<Node>),
    /// Moves the output, if it is there, into the `Option<T>` behind the pointer.
    take_output: unsafe fn(NonNull<Node>, *mut ()),
    /// Frees the cell; drops neither future nor output.
    free: unsafe fn(NonNull<Node>),
}

#[repr(C)]
struct TaskCell<F, T> {
    node: Node,
    /// Never dropped with the cell: what is inside may borrow from a frame that has gone (rule 4).
    stage: UnsafeCell<ManuallyDrop<Stage<F, T>>>,
}

enum Stage<F, T> {
    Running(F),
    Finished(T),
    Gone,
}

#[repr(C)]
struct NurseryCell {
    node: Node,
    core: Core,
}

impl Node {
    fn new(vtable: &'static VTable, shared: &Arc<Shared>, flags: u8, info: TaskInfo) -> Self {
        Self {
            vtable,
            shared: Arc::as_ptr(shared),
            remote: OnceLock::new(),
            references: Cell::new(1),
            flags: Cell::new(flags),
            stamp: Cell::new(0),
            next_ready: Cell::new(None),
            home: RefCell::new(None),
            scope: Cell::new(0),
            index: Cell::new(u32::MAX),
            waits: Cell::new(0),
            joiner: Cell::new(None),
            info,
        }
    }

    fn has(&self, flag: u8) -> bool {
        self.flags.get() & flag != 0
    }

    fn set(&self, flag: u8) {
        self.flags.set(self.flags.get() | flag);
    }

    fn clear(&self, flag: u8) {
        self.flags.set(self.flags.get() & !flag);
    }

    /// Whether this is the body of a nursery.
    pub(crate) fn is_body(&self) -> bool {
        self.has(BODY)
    }

    /// Whether the future has ended or been dropped.
    pub(crate) fn is_done(&self) -> bool {
        self.has(DONE)
    }

    /// Whether the node stands in a ready queue.
    pub(crate) fn is_ready(&self) -> bool {
        self.has(READY)
    }

    /// The node has been taken out of the queue to be polled.
    pub(crate) fn clear_ready(&self) {
        self.clear(READY);
    }

    /// No wake has an effect from now on.
    pub(crate) fn set_done(&self) {
        self.set(DONE);
    }

    /// Another counted handle to this node.
    pub(crate) fn reference(&self) -> NodeRef {
        let count = self.references.get();
        assert!(
            count < u32::MAX,
            "a node has fewer than four thousand million handles"
        );
        self.references.set(count + 1);
        NodeRef(NonNull::from(self))
    }

    /// The nursery in whose queue the node goes when it is woken.
    pub(crate) fn home(&self) -> Option<NurseryRef> {
        if self.is_body() {
            return Some(NurseryRef(self.reference()));
        }
        self.home.borrow().clone()
    }

    /// Moves the node to another nursery, or to none.
    pub(crate) fn set_home(&self, home: Option<NurseryRef>) {
        debug_assert!(!self.is_body(), "a body stays where it is");
        // The old home may go with its last handle: outside the borrow.
        let before = self.home.replace(home);
        drop(before);
    }

    /// Makes the node ready, and whoever has to poll its nursery (rules 1 to 3).
    pub(crate) fn schedule(&self) {
        if self.flags.get() & (READY | DONE) != 0 {
            return;
        }
        let mut node = self.reference();
        loop {
            if node.flags.get() & (READY | DONE) != 0 {
                return;
            }
            let Some(home) = node.home() else { return };
            node.set(READY);
            node.stamp.set(home.turn());
            home.instrument_scheduled(&node);
            home.ready.push(node);
            match home.notify() {
                Some(next) => node = next,
                None => return,
            }
        }
    }

    /// Polls with a context whose waker is this node's own.
    pub(crate) fn with_context<R>(&self, poll: impl FnOnce(&mut Context<'_>) -> R) -> R {
        let data = NonNull::from(self).cast::<()>().as_ptr();
        // SAFETY: the functions of `LOCAL` keep the contract of `RawWakerVTable` for a pointer to a
        // live node, and `&self` keeps the node alive while the waker exists. They may be called
        // from any thread meanwhile; each says why that is fine.
        let waker = unsafe { Waker::from_raw(RawWaker::new(data, &LOCAL)) };
        let waker = ManuallyDrop::new(waker);
        poll(&mut Context::from_waker(&waker))
    }

    /// Whether `waker` is this node's own, and not one that a combinator has put in its place.
    pub(crate) fn owns(&self, waker: &Waker) -> bool {
        let data = NonNull::from(self).cast::<()>().as_ptr().cast_const();
        std::ptr::eq(waker.data(), data)
    }

    /// Polls the future of a task once. The caller keeps rule 4.
    pub(crate) fn poll_task(&self) -> Poll<Result<()>> {
        assert!(!self.is_done(), "a task that has ended is not polled");
        // SAFETY: the pointer is to the node of the cell for whose types `vtable` was made. Nobody
        // else is inside the stage: nurseries poll and drop from the one thread of the run, a
        // nursery never while it polls the same node, and polling is refused after the end.
        self.with_context(|context| unsafe { (self.vtable.poll)(NonNull::from(self), context) })
    }

    /// Drops the future of a task, if it is still there. The caller keeps rule 4.
    pub(crate) fn drop_future(&self) {
        self.set_done();
        // SAFETY: as in `poll_task`; `DONE` excludes a later poll.
        unsafe { (self.vtable.drop_future)(NonNull::from(self)) }
    }

    /// The name that the task was given, or that of its type.
    pub(crate) fn name(&self) -> String {
        match &*self.info.name.borrow() {
            Some(name) => name.to_string(),
            None => tidy_type_name(self.info.type_name),
        }
    }
}

/// `app::serve::{{closure}}` is the future of `app::serve`.
fn tidy_type_name(name: &str) -> String {
    name.trim_end_matches("::{{closure}}").to_owned()
}

/// A counted handle to a node; stays on the thread of the run.
pub(crate) struct NodeRef(NonNull<Node>);

impl Deref for NodeRef {
    type Target = Node;

    fn deref(&self) -> &Node {
        // SAFETY: the handle is counted, and the cell is freed with the last one only.
        unsafe { self.0.as_ref() }
    }
}

impl Clone for NodeRef {
    fn clone(&self) -> Self {
        self.reference()
    }
}

impl Drop for NodeRef {
    fn drop(&mut self) {
        let count = self.references.get();
        self.references.set(count - 1);
        if count == 1 {
            if let Some(remote) = self.remote.get() {
                // Handles live on the thread of the run, and so does every reader of the pointer.
                remote.node.store(std::ptr::null_mut(), Ordering::Relaxed);
            }
            // SAFETY: this was the last handle, and the cell was made with this table.
            unsafe { (self.vtable.free)(self.0) }
        }
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
        let node = Node::new(&NURSERY, shared, BODY, info);
        let cell = Box::leak(Box::new(NurseryCell { node, core }));
        Self(NodeRef(NonNull::from(cell).cast()))
    }

    /// The node of the nursery's body.
    pub(crate) fn body(&self) -> &NodeRef {
        &self.0
    }
}

impl Deref for NurseryRef {
    type Target = Core;

    fn deref(&self) -> &Core {
        debug_assert!(
            self.0.is_body(),
            "only the node of a body is in a nursery's cell"
        );
        let cell = self.0.0.cast::<NurseryCell>();
        // SAFETY: handles of this type are made from the node of a `NurseryCell` only (`new`, and
        // `home` for a node with `BODY`, which only `new` sets); the handle keeps the cell alive,
        // and its core is never borrowed mutably.
        unsafe { &(*cell.as_ptr()).core }
    }
}

static NURSERY: VTable = VTable {
    poll: |_, _| unreachable!("a nursery polls its body itself"),
    drop_future: |_| {},
    take_output: |_, _| unreachable!("a body has no output in its node"),
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
    pub(crate) fn take(&self) -> Option<T> {
        let mut slot: Option<T> = None;
        let pointer = (&raw mut slot).cast::<()>();
        if self.node.is_done() {
            // SAFETY: the node is that of a `TaskCell<F, T>` with the same `T` (`new_task`), the slot
            // is an `Option<T>`, and nobody is inside the stage: a task that has ended is not polled.
            unsafe { (self.node.vtable.take_output)(self.node.0, pointer) }
        }
        slot
    }
}

impl<T> Drop for Output<T> {
    fn drop(&mut self) {
        // The output is dropped here, while what it borrows still lives, and not with the cell.
        self.node.clear(WANTED);
        drop(self.take());
    }
}

/// A task in a cell of its own, and the right to its output.
///
/// # Safety
///
/// Rule 4 of `task/mod.rs`: before anything that `F` borrows ends, the future is dropped by
/// [`Node::drop_future`] or has ended; and the [`Output`] does not outlive what `T` borrows.
pub(crate) unsafe fn new_task<F, T>(
    shared: &Arc<Shared>,
    future: F,
    name: Option<Box<str>>,
    place: &'static Location<'static>,
) -> Output<T>
where
    F: Future<Output = Result<T>>,
{
    let info = TaskInfo {
        name: RefCell::new(name),
        type_name: std::any::type_name::<F>(),
        place,
    };
    let node = Node::new(&Typed::<F, T>::TABLE, shared, WANTED, info);
    let stage = UnsafeCell::new(ManuallyDrop::new(Stage::<F, T>::Running(future)));
    let cell = Box::leak(Box::new(TaskCell { node, stage }));
    let node = NodeRef(NonNull::from(cell).cast());
    Output {
        node,
        output: std::marker::PhantomData,
    }
}

struct Typed<F, T>(std::marker::PhantomData<(F, T)>);

impl<F: Future<Output = Result<T>>, T> Typed<F, T> {
    const TABLE: VTable = VTable {
        poll: Self::poll,
        drop_future: Self::drop_future,
        take_output: Self::take_output,
        free: Self::free,
    };

    /// # Safety
    ///
    /// `node` is that of a live `TaskCell<F, T>`, and nobody else is inside its stage.
    unsafe fn stage<'a>(node: NonNull<Node>) -> &'a mut Stage<F, T> {
        let cell = node.cast::<TaskCell<F, T>>().as_ptr();
        // SAFETY: the caller vouches for the cell.
        let stage = unsafe { (*cell).stage.get() };
        // SAFETY: the caller vouches that this is the only reference into the stage.
        unsafe { &mut *stage }
    }

    unsafe fn poll(node: NonNull<Node>, context: &mut Context<'_>) -> Poll<Result<()>> {
        // SAFETY: passed on.
        let stage = unsafe { Self::stage(node) };
        let Stage::Running(future) = stage else {
            unreachable!("a task that has ended is not polled");
        };
        // SAFETY: the future stays in its cell on the heap until it is dropped there.
        let future = unsafe { Pin::new_unchecked(future) };
        let output = std::task::ready!(future.poll(context));
        // SAFETY: the caller vouches for the node.
        let head = unsafe { node.as_ref() };
        head.set_done();
        match output {
            Ok(value) => {
                let wanted = head.has(WANTED);
                *stage = if wanted {
                    Stage::Finished(value)
                } else {
                    Stage::Gone
                };
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                *stage = Stage::Gone;
                Poll::Ready(Err(error))
            }
        }
    }

    unsafe fn drop_future(node: NonNull<Node>) {
        // SAFETY: passed on.
        let stage = unsafe { Self::stage(node) };
        if matches!(stage, Stage::Running(_)) {
            *stage = Stage::Gone;
        }
    }

    unsafe fn take_output(node: NonNull<Node>, slot: *mut ()) {
        // SAFETY: passed on.
        let stage = unsafe { Self::stage(node) };
        if matches!(stage, Stage::Finished(_)) {
            if let Stage::Finished(value) = std::mem::replace(stage, Stage::Gone) {
                // SAFETY: the caller vouches that an `Option<T>` is behind the pointer.
                unsafe { *slot.cast::<Option<T>>() = Some(value) };
            }
        }
    }

    unsafe fn free(node: NonNull<Node>) {
        let cell = node.cast::<TaskCell<F, T>>().as_ptr();
        // SAFETY: the last handle has gone, and the cell came from a box in `new_task`. What may be
        // left in the stage is not dropped (`ManuallyDrop`).
        drop(unsafe { Box::from_raw(cell) });
    }
}

/// A node as other threads know it: alive as long as any cloned waker, while the node may be gone.
pub(crate) struct Remote {
    shared: Arc<Shared>,
    /// Null once the node is gone. Read and written on the thread of the run only.
    node: AtomicPtr<Node>,
    /// Whether it stands in the inbox already.
    queued: AtomicBool,
}

impl Remote {
    /// Schedules the node, if it still lives; to be called on the thread of the run.
    fn schedule_here(&self) {
        let node = self.node.load(Ordering::Relaxed);
        // SAFETY: this is the thread of the run, on which alone nodes are freed, and a node that is
        // freed clears the pointer first.
        if let Some(node) = unsafe { node.as_ref() } {
            node.schedule();
        }
    }

    /// Takes the wake of another thread out of the inbox.
    pub(crate) fn deliver(&self) {
        // Before the node is polled: a wake that comes later must be queued anew.
        self.queued.store(false, Ordering::Release);
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
        } else if !self.queued.swap(true, Ordering::AcqRel) {
            self.shared.post(self.clone());
        }
    }
}

static LOCAL: RawWakerVTable = RawWakerVTable::new(local_clone, local_wake, local_wake, local_drop);

/// The remote of the node behind `data`, made now if it is the first.
///
/// # Safety
///
/// `data` is a node that is alive, and is being polled on the thread of its run. May be called from
/// any thread: only fields that never change, and one that is synchronised, are touched.
unsafe fn remote<'a>(data: *const ()) -> &'a Arc<Remote> {
    let node = data.cast::<Node>();
    // SAFETY: the caller vouches for the node; the field is synchronised.
    let cell = unsafe { &(*node).remote };
    cell.get_or_init(|| {
        // SAFETY: the field never changes.
        let shared = unsafe { (*node).shared };
        // SAFETY: a node is polled only while its run is running, which holds the `Arc` that the
        // pointer came from.
        unsafe { Arc::increment_strong_count(shared) };
        // SAFETY: the count that was just added is this handle's.
        let shared = unsafe { Arc::from_raw(shared) };
        let node = AtomicPtr::new(node.cast_mut());
        Arc::new(Remote {
            shared,
            node,
            queued: AtomicBool::new(false),
        })
    })
}

unsafe fn local_clone(data: *const ()) -> RawWaker {
    // SAFETY: the waker is borrowed, so the node is alive and being polled.
    let remote = unsafe { remote(data) };
    let waker = ManuallyDrop::new(Waker::from(remote.clone()));
    RawWaker::new(waker.data(), waker.vtable())
}

unsafe fn local_wake(data: *const ()) {
    let node = data.cast::<Node>();
    // SAFETY: the waker is borrowed, so the node is alive; the field never changes.
    let shared = unsafe { (*node).shared };
    if context::is_current(shared) {
        // SAFETY: the node is alive, and this is the thread of its run.
        unsafe { (*node).schedule() };
    } else {
        // SAFETY: the waker is borrowed, so the node is alive and being polled.
        unsafe { remote(data) }.wake_by_ref();
    }
}

unsafe fn local_drop(_: *const ()) {}
