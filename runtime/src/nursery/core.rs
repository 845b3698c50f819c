//! What a nursery knows: its children, its ready queue, what has gone wrong so far; and one poll.

use std::any::Any;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::cancel::{CancelSource, Cancelled, Cause, Entry, Here, without_cancellations};
use crate::context;
use crate::error::{Error, Result};
use crate::run::{Around, Run};
use crate::task::{
    Birth, Locals, NodeRef, NurseryRef, ReadyQueue, Reason, Siblings, TaskInfo, is_of_a_node,
};

/// The state of a nursery; shared by its future, its children and its handles.
pub(crate) struct Core {
    pub(crate) run: Rc<Run>,
    pub(crate) ready: ReadyQueue,
    /// The waker of a combinator that is polled in the owner's place.
    foreign: RefCell<Option<Waker>>,
    /// The data of the owner's waker, if the owner is a node and there is no foreign waker: one comparison
    /// shows that it is still the same.
    owner_data: Cell<*const ()>,
    /// What a wake and a poll have to know, in one word, in which mostly no bit is set.
    flags: Cell<u8>,
    children: Siblings,
    /// The task or body that opened the nursery; for names, and for orphans after the end.
    opener: Option<NodeRef>,
    /// The values that were bound where the nursery was opened.
    pub(crate) locals: Option<Rc<Locals>>,
    pub(crate) scope: Cell<u32>,
    /// The scope that children are put in: that of the nursery, or in a service nursery a shielded
    /// one inside it, which is cancelled when the body has ended (`nursery/service.rs`).
    pub(crate) children_scope: Cell<u32>,
    /// Calls of `start` that have not ended.
    pub(crate) pending_starts: Cell<u32>,
    /// Operations in flight that tasks have left behind.
    orphans: Cell<u32>,
    /// For a nursery that was dropped half-way: the one that counts its orphans too. Kept here, because
    /// the task that opened this one may end before they do, and then belongs nowhere.
    heir: RefCell<Option<NurseryRef>>,
    body: Cell<Body>,
    errors: RefCell<Vec<Error>>,
    panic: Cell<Option<Box<dyn Any + Send>>>,
}

/// The owner has been told that something is ready.
const NOTIFIED: u8 = 1;
/// The nursery is being polled, and tells its owner at the end of the poll.
const DRIVEN: u8 = 2;
/// The short ways are closed: foreign code is called when something here becomes ready, or a seed decides
/// the order.
const WATCHED: u8 = 4;

/// Whom to notify when something becomes ready in a nursery.
pub(crate) enum Notice {
    /// Nobody: the owner knows already, or the nursery will see for itself.
    Nobody,
    Owner,
    /// Perhaps foreign observers too, which run their own code ([`NurseryRef::notify_watched`]).
    Others,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    Running,
    Ended,
    /// The nursery has ended: nothing can be added.
    Closed,
}

/// Stands for the owner where there is none: an address that no waker holds. A foreign waker may hold null,
/// and would then pass for the owner.
fn nobody() -> *const () {
    static NOBODY: u8 = 0;
    std::ptr::from_ref(&NOBODY).cast()
}

impl Core {
    fn new(run: Rc<Run>, opener: Option<NodeRef>, scope: u32, body: Body) -> Self {
        let watched = run.instrumented.get() || run.is_seeded();
        let flags = if watched { WATCHED } else { 0 };
        Self {
            run,
            ready: ReadyQueue::default(),
            foreign: RefCell::new(None),
            owner_data: Cell::new(nobody()),
            flags: Cell::new(flags),
            children: Siblings::default(),
            opener,
            locals: None,
            scope: Cell::new(scope),
            children_scope: Cell::new(scope),
            pending_starts: Cell::new(0),
            orphans: Cell::new(0),
            heir: RefCell::new(None),
            body: Cell::new(body),
            errors: RefCell::default(),
            panic: Cell::new(None),
        }
    }

    pub(crate) fn turn(&self) -> u32 {
        self.run.turn.get()
    }

    pub(crate) fn instrument_scheduled(&self, node: &NodeRef) {
        if self.run.instrumented.get() {
            self.run.instrument_scheduled(node);
        }
    }

    /// Whether foreign code is called when something here becomes ready (an instrument's, or that of a waker
    /// that a combinator has put in between), or a seed decides the order.
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.has(WATCHED)
    }

    /// The run has ended: any later poll of the nursery comes from a stranger.
    pub(crate) fn disown(&self) {
        self.owner_data.set(nobody());
    }

    /// The run has got its first instrument, or lost its last.
    pub(crate) fn update_watched(&self) {
        let foreign = self.foreign.borrow().is_some();
        let watched = foreign || self.run.instrumented.get() || self.run.is_seeded();
        match watched {
            true => self.set(WATCHED),
            false => self.clear(WATCHED),
        }
    }

    #[inline]
    fn has(&self, flags: u8) -> bool {
        self.flags.get() & flags != 0
    }

    #[inline]
    fn set(&self, flags: u8) {
        self.flags.set(self.flags.get() | flags);
    }

    #[inline]
    fn clear(&self, flags: u8) {
        self.flags.set(self.flags.get() & !flags);
    }

    /// Notes that something becomes ready, and returns whom to notify. Notifies nobody itself.
    #[inline]
    pub(crate) fn notify(&self) -> Notice {
        match self.flags.get() {
            0 => {
                self.flags.set(NOTIFIED);
                Notice::Owner
            }
            flags if flags & WATCHED != 0 => Notice::Others,
            _ => Notice::Nobody,
        }
    }

    /// Whether the nursery is being polled, and looks itself for what has become ready meanwhile.
    #[inline]
    pub(crate) fn is_driven(&self) -> bool {
        self.flags.get() == DRIVEN
    }

    /// Takes a node in that has become ready and stands in no queue.
    #[inline]
    pub(crate) fn take_ready(&self, node: NodeRef, reason: Reason) {
        self.take_ready_as_in(self.turn(), node, reason);
    }

    /// The same, as if it had been in `turn`.
    #[inline]
    pub(crate) fn take_ready_as_in(&self, turn: u32, node: NodeRef, reason: Reason) {
        if self.ready.push_in(turn, node, reason) {
            self.run.one_queue_more();
        }
    }

    /// Empties the ready queue: nothing in it is going to be polled here.
    pub(super) fn forget_ready(&self) {
        if !self.ready.is_empty() {
            self.run.one_queue_less();
            self.ready.clear();
        }
    }

    /// Whether the nursery has ended, or has been dropped.
    pub(super) fn is_closed(&self) -> bool {
        self.body.get() == Body::Closed
    }

    /// Cancels a child, and nothing else, for the holder of its handle.
    pub(super) fn cancel_child(
        &self,
        child: &NodeRef,
        reason: Option<Cow<'static, str>>,
        place: &'static Location<'static>,
    ) {
        let run = &*self.run;
        let cause = run.asked_for(CancelSource::Explicit, reason, place);
        match child.is_apart() {
            true => run.cancel_task(child, self.children_scope.get(), cause),
            false => run.cancel_for(child.scope.get(), cause),
        }
    }

    /// Moves the errors and the panic of this nursery to another.
    pub(super) fn move_failures(&self, to: &Self) {
        for error in self.errors.take() {
            to.fail(error, None);
        }
        if let Some(panic) = self.panic.take() {
            to.panicked(panic, None);
        }
    }

    pub(crate) fn child_count(&self) -> usize {
        self.children.len()
    }

    /// The task that opened this nursery, itself or in a body.
    pub(crate) fn task(&self) -> Option<&NodeRef> {
        let mut opener = self.opener.as_ref()?;
        while let Some(nursery) = opener.nursery() {
            opener = nursery.opener.as_ref()?;
        }
        Some(opener)
    }

    /// The nursery inside which this one was opened, or the next one outward that has not ended.
    fn around(&self) -> Option<NurseryRef> {
        let mut around = self.opener.as_ref()?.home()?;
        while around.body.get() == Body::Closed {
            around = around.opener.as_ref()?.home()?;
        }
        Some(around)
    }

    pub(crate) fn children(&self) -> Vec<NodeRef> {
        self.children.to_vec()
    }

    /// Releases a child, which goes to another nursery or has ended.
    #[inline]
    pub(crate) fn release(&self, child: &NodeRef) {
        drop(self.children.remove(child));
    }

    fn is_over(&self) -> bool {
        self.body.get() == Body::Ended
            && self.children.is_empty()
            && self.pending_starts.get() == 0
            && self.orphans.get() == 0
    }

    /// Takes from a child that by which it alone can be cancelled.
    #[inline]
    fn take_own(&self, child: &NodeRef) -> Own {
        if let Some(mark) = child.take_mark() {
            return Own::Mark(mark);
        }
        let around = self.children_scope.get();
        match child.scope.replace(around) {
            scope if scope == around => Own::Nothing,
            scope => Own::Scope(scope),
        }
    }

    /// Ends that, for a child that has not ended with a cancellation.
    #[inline]
    fn leave_own(&self, own: Own) {
        match own {
            Own::Nothing => {}
            Own::Scope(scope) => self.run.leave_from_drop(scope),
            Own::Mark(mark) => {
                self.end_mark(mark);
            }
        }
    }

    /// The same for a mark; returns whether a cancellation of a scope around the child is visible.
    fn end_mark(&self, mark: Cause) -> bool {
        let around = self.children_scope.get();
        self.run.tree.borrow_mut().end_mark(mark, around)
    }

    /// The part of a child's error that concerns the nursery: everything except cancellations that were
    /// meant for this child alone, or that a service nursery sends its children when its body has ended.
    #[inline]
    fn uncaught(&self, mut error: Error, own: Own) -> Option<Error> {
        // Mostly a cancelled child has no scope, and returns the cancellation and nothing else. That goes no
        // further, just as it would not leave a scope (S1, S5).
        let own = match own {
            Own::Mark(mark) => {
                let mut tree = self.run.tree.borrow_mut();
                if !tree.is_cancelled(self.children_scope.get()) {
                    match error.into_cancelled() {
                        Ok(cancelled) => {
                            tree.end_mark_with(mark, cancelled);
                            return None;
                        }
                        Err(other) => error = other,
                    }
                }
                Own::Mark(mark)
            }
            own => own,
        };
        self.uncaught_rarely(error, own)
    }

    #[cold]
    fn uncaught_rarely(&self, error: Error, own: Own) -> Option<Error> {
        let error = match own {
            Own::Nothing => error,
            Own::Scope(scope) => self.run.leave(scope).catch::<()>(Err(error)).0.err()?,
            Own::Mark(mark) => match self.end_mark(mark) {
                true => error,
                false => without_cancellations(error)?,
            },
        };
        match self.body.get() == Body::Ended && self.is_service() {
            true => error.subgroup(|leaf| leaf.as_cancelled().is_none()),
            false => Some(error),
        }
    }

    /// Whether the children live in a scope of their own.
    fn is_service(&self) -> bool {
        self.children_scope.get() != self.scope.get()
    }

    /// Leaves the scope of the children of a service nursery.
    fn leave_children_scope(&self) {
        if self.is_service() {
            let scope = self.children_scope.replace(self.scope.get());
            self.run.leave_from_drop(scope);
        }
    }

    /// Takes an error in, and cancels the rest.
    pub(crate) fn fail(&self, error: Error, child: Option<&NodeRef>) {
        let scope = self.scope.get();
        if self.run.tree.borrow().own(scope).is_none() {
            let cancelled = match error.as_cancelled() {
                Some(cancelled) => cancelled.clone(),
                None => self.reason(&format!("raised {error}"), child),
            };
            self.run.cancel(scope, cancelled);
        }
        self.errors.borrow_mut().push(error);
    }

    fn panicked(&self, panic: Box<dyn Any + Send>, child: Option<&NodeRef>) {
        self.run
            .cancel(self.scope.get(), self.reason("panicked", child));
        // The first panic is the one that continues; the hook has printed every one.
        let first = self.panic.take().unwrap_or(panic);
        self.panic.set(Some(first));
    }

    /// Takes in the panic of a call from the inbox, which is no task's fault.
    pub(crate) fn call_panicked(&self, panic: Box<dyn Any + Send>, reason: &'static str) {
        let cancelled = Cancelled::new(CancelSource::Nursery, Some(reason.into()), None, None);
        self.run.cancel(self.scope.get(), cancelled);
        self.panicked(panic, None);
    }

    fn reason(&self, what: &str, child: Option<&NodeRef>) -> Cancelled {
        let (reason, task) = match child {
            Some(child) => (
                format!("child task {} {what}", child.name()),
                Some(child.name()),
            ),
            None => {
                let opener = self.task().map(|task| task.name());
                (format!("code block inside nursery {what}"), opener)
            }
        };
        Cancelled::new(CancelSource::Nursery, Some(reason.into()), task, None)
    }

    /// An operation in flight lost its task; it counts against this nursery until it ends.
    pub(crate) fn add_orphan(&self) {
        self.orphans.set(self.orphans.get() + 1);
    }

    /// The result of the nursery, from that of its body and what its children have left.
    fn result<T: Default>(&self, value: Option<T>) -> Result<T> {
        let mut errors = self.errors.take();
        self.leave_children_scope();
        let panic = self.panic.take();
        if errors.is_empty() || panic.is_some() {
            self.run.leave_from_drop(self.scope.get());
            if let Some(panic) = panic {
                resume_unwind(panic);
            }
            return Ok(value.expect("a body without an error has a value"));
        }
        let mut left = self.run.leave(self.scope.get());
        // Mostly each child of a cancelled nursery returns just that cancellation, which can be taken out
        // without making a group first.
        left.catch_among(&mut errors);
        if errors.is_empty() {
            left.close(true);
            return Ok(value.unwrap_or_default());
        }
        let (result, _) = left.catch::<T>(Err(Error::group("errors in a nursery", errors)));
        result.map(|_| value.unwrap_or_default())
    }
}

/// What needs the handle itself, for its body or to hand it on.
impl NurseryRef {
    /// Notes that something is ready in a nursery that may be watched, which the caller holds; returns the
    /// node that has to be woken for it, if there is one.
    pub(crate) fn notify_watched(&self) -> Option<NodeRef> {
        if self.has(NOTIFIED | DRIVEN) {
            return None;
        }
        self.set(NOTIFIED);
        if let Some(waker) = &*self.foreign.borrow() {
            self.run.defer_wake(waker.clone());
        }
        self.owner()
    }

    /// Makes sure that the nursery is polled.
    pub(super) fn poke(&self) {
        if let Some(node) = self.notify_watched() {
            node.schedule();
        }
    }

    /// An orphan has ended. If this nursery was dropped meanwhile, its heir counts it too.
    pub(crate) fn remove_orphan(&self) {
        let mut dropped = self.one_orphan_less();
        while let Some(around) = dropped {
            dropped = around.one_orphan_less();
        }
    }

    fn one_orphan_less(&self) -> Option<Self> {
        self.orphans.set(self.orphans.get() - 1);
        if self.body.get() == Body::Closed {
            return self.heir.borrow().clone();
        }
        if self.orphans.get() == 0 {
            self.poke();
        }
        None
    }

    /// Notes in whose poll this is.
    #[inline]
    fn set_owner_of_poll(&self, context: &Context<'_>) {
        // No two nodes lend wakers with the same data, so the owner is still the same.
        let waker = context.waker();
        if self.owner_data.get() != waker.data() || !is_of_a_node(waker) {
            self.change_owner(context);
        }
    }

    fn change_owner(&self, context: &Context<'_>) {
        assert!(
            !self.run.has_ended(),
            "a nursery goes on in the run in which it was opened, and that run has ended"
        );
        let own = self.run.current.owns(context.waker());
        let (data, foreign) = match own {
            true => (context.waker().data(), None),
            false => (nobody(), Some(context.waker().clone())),
        };
        self.owner_data.set(data);
        let before = self.foreign.replace(foreign);
        self.update_watched();
        self.set_owner(self.run.current.get().filter(|_| own));
        drop(before);
    }

    /// Takes in a task that has been in another nursery.
    pub(super) fn adopt(&self, child: &NodeRef) {
        self.assert_open();
        self.children.push(child);
        child.set_home(Some(self.clone()));
    }

    #[inline]
    fn assert_open(&self) {
        assert!(
            self.body.get() != Body::Closed,
            "a nursery that has ended takes no task in"
        );
    }

    /// What a task that is spawned here has from the beginning.
    #[inline]
    pub(super) fn birth(&self) -> Birth {
        self.assert_open();
        Birth {
            home: Some(self.clone()),
            scope: self.children_scope.get(),
            locals: Locals::of_child(&self.run, self),
        }
    }

    /// Takes in a task that has been [born](Self::birth) here; it becomes ready.
    pub(super) fn begin(&self, child: &NodeRef) {
        self.children.push(child);
        if self.run.observed.get() {
            self.run.observe_spawned(child);
        }
        child.schedule_first(self);
    }

    /// One poll: every node that was woken before this turn, once, and as many further turns as are
    /// made here and not by the loop ([`Run::next_turn_here`]). Ready when the nursery has ended.
    #[inline]
    pub(crate) fn drive<T>(
        &self,
        context: &mut Context<'_>,
        mut poll_body: impl FnMut(&mut Context<'_>) -> Poll<Result<T>>,
        value: &mut Option<T>,
    ) -> Poll<()> {
        let around = self.begin_poll_in(context);
        loop {
            self.step(&mut poll_body, value, around);
            if self.is_over() {
                return self.end();
            }
            if self.ready.is_empty() || !self.is_driven() || !self.run.next_turn_here() {
                self.end_poll();
                return Poll::Pending;
            }
        }
    }

    /// The same for one turn only: the caller has something to do before the next.
    pub(super) fn drive_once<T>(
        &self,
        context: &mut Context<'_>,
        mut poll_body: impl FnMut(&mut Context<'_>) -> Poll<Result<T>>,
        value: &mut Option<T>,
    ) -> Poll<()> {
        let around = self.begin_poll_in(context);
        self.run.leave_turns_to_loop();
        self.step(&mut poll_body, value, around);
        if self.is_over() {
            return self.end();
        }
        self.end_poll();
        Poll::Pending
    }

    #[inline]
    fn begin_poll_in(&self, context: &Context<'_>) -> Around {
        self.set_owner_of_poll(context);
        self.begin_poll();
        if !self.is_polled_on_behalf() {
            self.run.leave_turns_to_loop();
        }
        self.run.put_aside()
    }

    /// Closes the nursery: nothing can be added from here on. The queue holds what the last step has woken.
    #[inline]
    fn end(&self) -> Poll<()> {
        self.body.set(Body::Closed);
        if !self.ready.is_empty() {
            self.forget_ready();
        }
        Poll::Ready(())
    }

    /// Polls every node that was woken before this turn, once.
    #[inline(always)]
    fn step<T>(
        &self,
        poll_body: &mut impl FnMut(&mut Context<'_>) -> Poll<Result<T>>,
        value: &mut Option<T>,
        around: Around,
    ) {
        while let Some(node) = self.next_ready() {
            if node.is_body() {
                if self.body.get() == Body::Running {
                    self.step_body(poll_body, value, around);
                }
                // The body stands in the queue once. What is behind it is not polled by this loop:
                // the code of the body would become part of the loop.
                self.end_step(node);
                if self.ready.is_any_woken_before(self.turn()) {
                    self.step_rest(around);
                }
                break;
            }
            self.step_child(&node, around);
            self.end_step(node);
        }
        self.run.put_back(around);
    }

    /// What becomes ready from here on is found at the end of the poll.
    #[inline]
    fn begin_poll(&self) {
        match self.is_watched() {
            true => self.begin_watched_poll(),
            false => self.flags.set(DRIVEN),
        }
    }

    /// The same for a nursery that is watched: its owner is notified when something becomes ready.
    #[cold]
    fn begin_watched_poll(&self) {
        self.clear(NOTIFIED);
        self.run.leave_turns_to_loop();
        if self.run.is_seeded() {
            self.shuffle_ready(self.turn());
        }
    }

    /// Polls what is behind the body.
    #[inline(never)]
    fn step_rest(&self, around: Around) {
        self.step_children(around);
    }

    /// Polls every child that was woken before this turn.
    #[inline(always)]
    fn step_children(&self, around: Around) {
        while let Some(node) = self.next_ready() {
            self.step_child(&node, around);
            self.end_step(node);
        }
    }

    /// Takes the next node out of the queue, if it was woken before this turn. The turn is asked for
    /// each time: what is polled may have begun others.
    #[inline(always)]
    fn next_ready(&self) -> Option<NodeRef> {
        let node = self.ready.pop_woken_before(self.turn())?;
        if self.ready.is_empty() {
            self.run.one_queue_less();
        }
        Some(node)
    }

    /// Ends the step of a node, which may have asked to be polled again.
    #[inline(always)]
    fn end_step(&self, node: NodeRef) {
        if node.is_again() && node.take_again() {
            match self.is_watched() {
                true => node.schedule(),
                false => self.take_ready(node, Reason::Inside),
            }
        }
    }

    /// Notifies the owner if something waits for the next turn. So each level of nurseries is
    /// notified once, by the one below, which knows best, and no wake has to climb through
    /// nurseries that are being polled anyway.
    #[inline]
    fn end_poll(&self) {
        if !self.is_driven() {
            return self.end_watched_poll();
        }
        if self.ready.is_empty() {
            self.flags.set(0);
        } else {
            self.flags.set(NOTIFIED);
            self.ask_owner_again();
        }
    }

    /// The same for a nursery that was watched when the poll began, or is now.
    #[cold]
    fn end_watched_poll(&self) {
        self.clear(DRIVEN);
        if !self.ready.is_empty() {
            self.poke();
        }
    }

    /// Puts what is to be polled into the order that the seed decides.
    #[cold]
    fn shuffle_ready(&self, turn: u32) {
        let mut batch = Vec::new();
        while let Some(node) = self.ready.pop_woken_before(turn) {
            batch.push(node);
        }
        self.run.shuffle(&mut batch);
        // What was woken in this turn stands behind.
        batch.extend(std::iter::from_fn(|| self.ready.pop()));
        // As many as have been taken out, so that as many queues have something in them as before.
        batch.into_iter().for_each(|node| {
            self.ready.push(node);
        });
    }

    /// Notifies the run when something in the root nursery becomes ready. That nursery has no owner to be
    /// woken, but the run of a guest may have to end the wait of another thread (`guest.rs`).
    pub(crate) fn tell_run(&self) {
        drop(self.foreign.replace(Some(Waker::noop().clone())));
        self.set(WATCHED);
    }

    /// Nothing is ready: the owner is notified again of the next thing that becomes ready.
    pub(crate) fn expect_notice(&self) {
        self.clear(NOTIFIED);
    }

    /// One poll of the root nursery, which has no body.
    #[inline]
    pub(crate) fn drive_root(&self) {
        self.begin_poll();
        let around = self.run.put_aside();
        self.step_children(around);
        self.run.put_back(around);
        // There is no owner to notify: the loop looks for itself.
        self.clear(DRIVEN);
    }

    /// Always inlined, as [`step_child`](Self::step_child).
    #[inline(always)]
    fn step_body<T>(
        &self,
        poll_body: &mut impl FnMut(&mut Context<'_>) -> Poll<Result<T>>,
        value: &mut Option<T>,
        around: Around,
    ) {
        let body = self.body();
        let run = &*self.run;
        let here = Here::at(self.scope.get());
        if run.observed.get() {
            run.observe_step(body, here, true);
        }
        run.stand(here);
        let result = body.with_context(|context| run.current.during(body, || poll_body(context)));
        if run.observed.get() {
            run.put_back(around);
            run.observe_step(body, here, false);
        }
        if let Ok(Poll::Pending) = result {
            return;
        }
        run.put_back(around);
        match result {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(Ok(output))) => *value = Some(output),
            Ok(Poll::Ready(Err(error))) => self.fail(error, None),
            Err(panic) => self.panicked(panic, None),
        }
        self.body_ended();
    }

    /// Ends the body, which is not polled again.
    fn body_ended(&self) {
        self.body.set(Body::Ended);
        // A waker of the body may live on. It must not put the body into the queue of its own nursery,
        // which would then keep itself alive.
        self.body().set_done();
        self.settle_left_behind(self.body());
        if self.is_service() {
            self.dismiss_children();
        }
    }

    /// Cancels the children of a service nursery, whose body has ended.
    fn dismiss_children(&self) {
        let reason = "the body of the service nursery has ended";
        let task = self.task().map(|task| task.name());
        let cancelled = Cancelled::new(CancelSource::Nursery, Some(reason.into()), task, None);
        self.run.cancel(self.children_scope.get(), cancelled);
    }

    /// Always inlined, so that there are few frames between two levels of nurseries. What is rare is
    /// called, so that the rest has the registers.
    #[inline(always)]
    fn step_child(&self, child: &NodeRef, around: Around) {
        let run = &*self.run;
        if run.observed.get() {
            return self.step_observed_child(child, around);
        }
        run.stand(Here::of_task(child.scope.get(), child.is_apart()));
        match child.poll_task(&run.current) {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(result)) => self.child_returned(child, result, around),
            Err(panic) => self.child_panicked(child, panic, around),
        }
    }

    /// The same, observed by instruments or by the watchdog.
    #[cold]
    fn step_observed_child(&self, child: &NodeRef, around: Around) {
        let run = &*self.run;
        let here = || Here::of_task(child.scope.get(), child.is_apart());
        if child.is_done() {
            return;
        }
        run.observe_step(child, here(), true);
        run.stand(here());
        let polled = child.poll_task(&run.current);
        run.put_back(around);
        // It may have got a scope of its own meanwhile, in each of these steps.
        run.observe_step(child, here(), false);
        match polled {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(result)) => self.child_returned(child, result, around),
            Err(panic) => self.child_panicked(child, panic, around),
        }
    }

    /// Ends a child that has returned. What follows is called, each case by itself, so that this is no more
    /// than a branch.
    #[inline(never)]
    fn child_returned(&self, child: &NodeRef, result: Result<()>, around: Around) {
        match result {
            Ok(()) => self.child_finished(child, around),
            Err(error) => self.child_failed(child, error, around),
        }
    }

    /// A child has returned without an error.
    #[inline(never)]
    fn child_finished(&self, child: &NodeRef, around: Around) {
        if let Err(panic) = child.end(&self.run.current) {
            return self.child_panicked(child, panic, around);
        }
        self.run.put_back(around);
        let own = self.child_ended(child);
        self.leave_own(own);
    }

    /// A child has returned with an error.
    #[inline(never)]
    fn child_failed(&self, child: &NodeRef, error: Error, around: Around) {
        if let Err(panic) = child.end(&self.run.current) {
            return self.child_panicked(child, panic, around);
        }
        self.run.put_back(around);
        let own = self.child_ended(child);
        match self.uncaught(error, own) {
            Some(error) => {
                child.set_failed();
                self.fail(error, Some(child));
            }
            None => child.set_cancelled(),
        }
    }

    #[cold]
    fn child_panicked(&self, child: &NodeRef, panic: Box<dyn Any + Send>, around: Around) {
        self.run.put_back(around);
        let dropped = catch_unwind(AssertUnwindSafe(|| child.drop_future()));
        let own = self.child_ended(child);
        self.leave_own(own);
        child.set_failed();
        self.panicked(panic, Some(child));
        if let Err(panic) = dropped {
            self.panicked(panic, Some(child));
        }
    }

    /// Returns that by which it alone could be cancelled, which the caller has to end.
    #[inline(always)]
    fn child_ended(&self, child: &NodeRef) -> Own {
        self.release(child);
        self.settle_left_behind(child);
        let own = self.take_own(child);
        child.set_home(None);
        drop(child.replace_locals(None));
        if let Some(joiner) = child.take_joiner() {
            self.run.claim_wait(joiner);
        }
        if self.run.observed.get() {
            self.run.observe_exited(child);
        }
        own
    }

    /// Asks the operations that a task has forgotten to end, and stays open until they have (D8).
    #[inline]
    fn settle_left_behind(&self, task: &NodeRef) {
        if task.has_waits() {
            self.run.settle_left_behind(task, self);
        }
    }
}

/// What a child has of its own in the tree of scopes.
enum Own {
    Nothing,
    /// A task that was started has a scope, and one with a handle that has asked for its scope.
    Scope(u32),
    /// Its handle has cancelled it, and it has no scope.
    Mark(Cause),
}

/// How a run fails.
pub(crate) enum Failure {
    Panic(Box<dyn Any + Send>),
    Error(Error),
}

/// A nursery that has been opened and not been finished; dropping it drops the children.
pub(crate) struct Open {
    nursery: NurseryRef,
    finished: bool,
}

impl Open {
    /// A nursery in the current task, its scope inside the current scope.
    pub(crate) fn new(place: &'static Location<'static>) -> Result<Self> {
        context::with(|run| {
            run.check_depth()?;
            let opener = run.current.get();
            let locals = opener.as_ref().and_then(|opener| opener.locals());
            let scope = run.enter_plain();
            let mut core = Core::new(run.clone(), opener, scope, Body::Running);
            core.locals.clone_from(&locals);
            let open = Self::from_core(run, core, place);
            drop(open.nursery.body().replace_locals(locals));
            open.nursery.begin_body();
            Ok(open)
        })
    }

    /// The nursery around the main task and the system tasks. Its scope is what is cancelled when one
    /// of these fails, or when the main task has ended.
    pub(crate) fn root(run: &Rc<Run>, place: &'static Location<'static>) -> Self {
        let scope = run.enter_plain();
        let core = Core::new(run.clone(), None, scope, Body::Ended);
        Self::from_core(run, core, place)
    }

    fn from_core(run: &Rc<Run>, core: Core, place: &'static Location<'static>) -> Self {
        let info = TaskInfo { name: None, place };
        let nursery = NurseryRef::new(&run.shared, core, info);
        run.nurseries.push(nursery.body());
        run.watch_body(nursery.body(), true);
        Self {
            nursery,
            finished: false,
        }
    }

    /// Makes it a service nursery, before anything is in it.
    pub(crate) fn into_service(self) -> Self {
        let core = &self.nursery;
        let entry = Entry {
            shield: true,
            ..Entry::default()
        };
        let scope = core.run.enter_under(core.scope.get(), entry);
        core.children_scope.set(scope);
        self
    }

    pub(crate) fn nursery(&self) -> NurseryRef {
        self.nursery.clone()
    }

    /// Ends the nursery after its last poll.
    ///
    /// # Panics
    ///
    /// With the panic of a child or of the body.
    pub(crate) fn finish<T: Default>(mut self, value: Option<T>) -> Result<T> {
        self.finished = true;
        self.nursery.result(value)
    }

    /// Ends the root nursery; returns the panic of the main task, or what has gone wrong in a
    /// system task.
    pub(crate) fn finish_root(mut self) -> Option<Failure> {
        self.close();
        self.finished = true;
        if let Some(panic) = self.nursery.panic.take() {
            return Some(Failure::Panic(panic));
        }
        let mut errors = self.nursery.errors.take();
        if errors.is_empty() {
            return None;
        }
        let error = match errors.len() {
            1 => errors.remove(0),
            _ => Error::group("errors in system tasks", errors),
        };
        // How they end when the run does, or when another has failed, is not a failure.
        let failure = error.subgroup(|leaf| leaf.as_cancelled().is_none());
        failure.map(Failure::Error)
    }

    /// Drops whatever is still in the nursery. Futures that are dropped may spawn in their
    /// destructors: what they add is dropped as well.
    fn close(&self) -> Option<Box<dyn Any + Send>> {
        let core = &self.nursery;
        let mut first = None;
        while let Some(child) = core.children.pop() {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| child.drop_future())) {
                first.get_or_insert(panic);
            }
            core.settle_left_behind(&child);
            core.leave_own(core.take_own(&child));
            child.set_home(None);
            if core.run.observed.get() {
                core.run.observe_exited(&child);
            }
            drop(child.replace_locals(None));
        }
        core.settle_left_behind(core.body());
        core.forget_ready();
        first
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let body = self.nursery.body();
        self.nursery.run.watch_body(body, false);
        if body.is_listed() {
            drop(self.nursery.run.nurseries.remove(body));
        }
        if self.finished {
            return;
        }
        // Dropped half-way, by a foreign combinator, or because a frame around it panics.
        let panic = self.close();
        let core = &self.nursery;
        core.body.set(Body::Closed);
        body.set_done();
        if let Some(around) = core.around().filter(|_| core.orphans.get() > 0) {
            for _ in 0..core.orphans.get() {
                around.add_orphan();
            }
            core.heir.replace(Some(around));
        }
        core.leave_children_scope();
        core.run.leave_from_drop(core.scope.get());
        if let Some(panic) = panic {
            if !std::thread::panicking() {
                resume_unwind(panic);
            }
        }
    }
}
