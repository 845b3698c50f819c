//! The scope as a user holds it, and the future that runs inside one.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use trio_platform::Time;

use super::position::Before;
use super::{After, CancelSource, Cancelled, Entry, Here, Left};
use crate::context;
use crate::error::{Error, Result, Usage};
use crate::run::Run;

/// A handle to a cancel scope: make it first, share it, enter it once.
///
/// Clones are handles to the same scope. Before a scope is entered it can be given a deadline and a
/// shield, and can be cancelled, which then takes effect on entry. After it has been left it still
/// says how it ended.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use trio::{CancelScope, sleep_forever};
///
/// let scope = CancelScope::new();
/// let stop = scope.clone();
/// let ended = scope
///     .enter(async {
///         stop.cancel("seen enough");
///         sleep_forever().await?;
///         Ok(())
///     })
///     .await?;
/// assert!(ended.is_none());
/// assert!(scope.cancelled_caught());
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[doc(alias = "CancellationToken")]
#[doc(alias = "AbortHandle")]
#[derive(Clone)]
pub struct CancelScope(Rc<Handle>);

pub(crate) struct Handle(RefCell<State>);

enum State {
    Unbound(Entry),
    Active {
        run: u64,
        scope: u32,
    },
    Exited {
        own: Option<Cancelled>,
        caught: bool,
        shield: bool,
        deadline: Time,
    },
}

impl CancelScope {
    /// A scope without a deadline or a shield.
    pub fn new() -> Self {
        Self(Rc::new(Handle(RefCell::new(State::Unbound(
            Entry::default(),
        )))))
    }

    /// A scope that is cancelled `timeout` after it has been entered.
    ///
    /// The time of entry is read from the clock at the end of the turn in which something in the
    /// scope first waits, or when the deadline is asked for. So a scope in which nothing waits
    /// costs no clock reading, and all others together cost one a turn.
    #[track_caller]
    pub fn with_timeout(timeout: Duration) -> Self {
        let entry = Entry {
            relative: Some(timeout),
            place: Some(Location::caller()),
            ..Entry::default()
        };
        Self(Rc::new(Handle(RefCell::new(State::Unbound(entry)))))
    }

    /// A scope that is cancelled at `deadline`.
    #[track_caller]
    pub fn with_deadline(deadline: Time) -> Self {
        let entry = Entry {
            deadline,
            place: Some(Location::caller()),
            ..Entry::default()
        };
        Self(Rc::new(Handle(RefCell::new(State::Unbound(entry)))))
    }

    /// The scope with its shield up: cancellations of enclosing scopes do not reach what is inside.
    #[must_use]
    pub fn shielded(self) -> Self {
        self.set_shield(true);
        self
    }

    /// The handle of a scope that was entered without one; its slot keeps the handle.
    pub(crate) fn active(run: &Run, scope: u32) -> Self {
        if let Some(handle) = run.tree.borrow().handle(scope) {
            return Self(handle);
        }
        let handle = Rc::new(Handle(RefCell::new(State::Active { run: run.id, scope })));
        run.tree.borrow_mut().set_handle(scope, handle.clone());
        Self(handle)
    }

    /// Runs `future` in this scope: `None` if the scope was cancelled and the future ended with
    /// nothing but that cancellation, else what the future returned.
    ///
    /// # Cancellation
    ///
    /// Not a checkpoint by itself. A cancellation of an enclosing scope passes through, even if
    /// this scope is cancelled too (semantics S1, S2).
    ///
    /// # Errors
    ///
    /// What the future returned, without the cancellations that belong to this scope. [`Usage`] if
    /// the scope has been entered before. [`NestedTooDeeply`](crate::NestedTooDeeply) if the
    /// thread's stack has no room for another level.
    pub fn enter<F: Future<Output = Result<T>>, T>(&self, future: F) -> Enter<F> {
        Enter {
            inside: InScope::new(future, Source::Handle(self.0.clone())),
        }
    }

    /// Cancels the scope. When this returns, every operation that waits inside has been aborted, or
    /// asked to end. The first cancellation of a scope is the one that its errors describe.
    ///
    /// `reason` is for people who read the error; it may be empty.
    #[track_caller]
    pub fn cancel(&self, reason: impl Into<Cow<'static, str>>) {
        let (source, place) = (CancelSource::Explicit, Location::caller());
        let reason = given(reason.into());
        if matches!(&*self.0.0.borrow(), State::Unbound(_)) {
            return self.cancel_as(asked_for(source, reason, place));
        }
        self.with_active(|run, scope| run.cancel_for(scope, run.asked_for(source, reason, place)));
    }

    /// Cancels the scope with a cancellation that was requested elsewhere.
    pub(crate) fn cancel_as(&self, cancelled: Cancelled) {
        if let State::Unbound(entry) = &mut *self.0.0.borrow_mut() {
            entry.cancelled.get_or_insert(cancelled);
            return;
        }
        self.with_active(|run, scope| run.cancel(scope, cancelled));
    }

    /// Asks everything in the scope to finish what it is doing and to begin nothing new, and cancels
    /// the scope when `grace` is over.
    ///
    /// This is the first, gentle stage of a shutdown. Code in the scope takes part by asking
    /// [`is_draining`](crate::is_draining), or by putting what it need not finish, such as waiting for
    /// the next request, into [`until_draining`](crate::until_draining). The rest goes on undisturbed
    /// until it has ended or the grace period is over. An earlier deadline stays; [`Duration::MAX`]
    /// sets no limit. If the scope has not been entered, the period counts from entry.
    ///
    /// A shield keeps the request from what is under it, as it does a cancellation. The first request
    /// is the one that errors describe; a later one can shorten the period, but not lengthen it.
    ///
    /// # Examples
    ///
    /// ```
    /// # use trio_runtime as trio;
    /// # trio::run(async {
    /// use std::time::Duration;
    /// use trio::{CancelScope, is_draining, open_nursery, sleep, sleep_forever, until_draining};
    ///
    /// let scope = CancelScope::new();
    /// let serve = async {
    ///     while until_draining(sleep_forever()).await?.is_some() {
    ///         unreachable!("no request comes");
    ///     }
    ///     assert!(is_draining());
    ///     sleep(Duration::from_millis(1)).await?; // time to say goodbye
    ///     Ok("orderly")
    /// };
    /// open_nursery(async |nursery| {
    ///     let mut server = nursery.spawn(scope.enter(serve));
    ///     scope.drain(Duration::from_secs(30), "the service is restarted");
    ///     assert_eq!(server.join().await?, Some("orderly"));
    ///     Ok(())
    /// })
    /// .await
    /// # }).unwrap();
    /// ```
    #[doc(alias = "cancel_soft")]
    #[doc(alias = "graceful")]
    #[track_caller]
    pub fn drain(&self, grace: Duration, reason: impl Into<Cow<'static, str>>) {
        let reason = given(reason.into());
        let asked = asked_for(CancelSource::Drain, reason, Location::caller());
        if let State::Unbound(entry) = &mut *self.0.0.borrow_mut() {
            let drain = entry.drain.get_or_insert_with(|| Box::new((asked, grace)));
            drain.1 = drain.1.min(grace);
            return;
        }
        self.with_active(|run, scope| run.drain(scope, asked, grace));
    }

    /// Whether the scope has been cancelled, by a call or by its deadline.
    ///
    /// A deadline that has passed takes effect now, if the loop has not seen it yet, so that the
    /// answer never changes back.
    pub fn cancel_called(&self) -> bool {
        // Asked before anything is borrowed: a clock may be user code.
        let due =
            matches!(&*self.0.0.borrow(), State::Unbound(entry) if entry.deadline != Time::NEVER);
        let now = due.then(|| context::try_with(|run| run.map(|run| run.now())));
        let now = now.flatten();
        match &mut *self.0.0.borrow_mut() {
            State::Unbound(entry) => {
                if entry.cancelled.is_none() && now.is_some_and(|now| entry.deadline <= now) {
                    entry.cancelled = Some(Cancelled::by_deadline(entry.place));
                }
                return entry.cancelled.is_some();
            }
            State::Exited { own, .. } => return own.is_some(),
            State::Active { .. } => {}
        }
        self.with_active(|run, scope| {
            let deadline = {
                let tree = run.tree.borrow();
                if tree.own(scope).is_some() {
                    return true;
                }
                // A deadline that is not yet counted from a moment has not come.
                match tree.relative(scope) {
                    Some(_) => Time::NEVER,
                    None => tree.deadline(scope),
                }
            };
            let passed = deadline != Time::NEVER && deadline <= run.now();
            if passed {
                let place = run.tree.borrow().place(scope);
                run.cancel(scope, Cancelled::by_deadline(place));
            }
            passed
        })
        .unwrap_or(false)
    }

    /// Whether the scope has taken a cancellation out of the result of its future.
    pub fn cancelled_caught(&self) -> bool {
        matches!(&*self.0.0.borrow(), State::Exited { caught: true, .. })
    }

    /// When the scope will be cancelled by its deadline; `None` if never, or if the deadline is
    /// relative and the scope has not been entered.
    pub fn deadline(&self) -> Option<Time> {
        let deadline = match &*self.0.0.borrow() {
            State::Unbound(entry) => entry.deadline,
            State::Exited { deadline, .. } => *deadline,
            State::Active { .. } => self
                .with_active(|run, scope| {
                    run.resolve(scope);
                    run.tree.borrow().deadline(scope)
                })
                .unwrap_or(Time::NEVER),
        };
        (deadline != Time::NEVER).then_some(deadline)
    }

    /// Sets the time at which the scope is cancelled, replacing whatever was set before;
    /// [`Time::NEVER`] for never. A time in the past takes effect at the next turn of the loop.
    #[track_caller]
    pub fn set_deadline(&self, to: Time) {
        let place = Location::caller();
        if let State::Unbound(entry) = &mut *self.0.0.borrow_mut() {
            entry.place = Some(place);
            entry.deadline = to;
            entry.relative = None;
            return;
        }
        self.with_active(|run, scope| {
            {
                let mut tree = run.tree.borrow_mut();
                tree.set_deadline(scope, to);
                tree.set_place(scope, place);
            }
            run.stir();
        });
    }

    /// Sets the deadline to `timeout` after entry; in a scope that has been entered, after now.
    #[doc(alias = "relative_deadline")]
    #[track_caller]
    pub fn set_timeout(&self, timeout: Duration) {
        let place = Location::caller();
        if let State::Unbound(entry) = &mut *self.0.0.borrow_mut() {
            entry.place = Some(place);
            entry.deadline = Time::NEVER;
            entry.relative = Some(timeout);
            return;
        }
        self.with_active(|run, scope| {
            let deadline = run.now() + timeout;
            {
                let mut tree = run.tree.borrow_mut();
                tree.set_deadline(scope, deadline);
                tree.set_place(scope, place);
            }
            run.stir();
        });
    }

    /// What is left until the deadline: before entry the timeout that was asked for, afterwards the
    /// time from now, zero if it has passed. `None` if there is no deadline, or, before entry, none
    /// that is relative.
    #[doc(alias = "relative_deadline")]
    pub fn timeout(&self) -> Option<Duration> {
        if let State::Unbound(entry) = &*self.0.0.borrow() {
            return entry.relative;
        }
        self.left()
    }

    /// The time left until the deadline, if there is one and a run whose clock can tell.
    fn left(&self) -> Option<Duration> {
        let deadline = self.deadline()?;
        context::try_with(|run| run.map(|run| deadline.saturating_since(run.now())))
    }

    /// Whether the shield is up.
    pub fn shield(&self) -> bool {
        match &*self.0.0.borrow() {
            State::Unbound(entry) => entry.shield,
            State::Exited { shield, .. } => *shield,
            State::Active { .. } => self
                .with_active(|run, scope| run.tree.borrow().shield(scope))
                .unwrap_or(false),
        }
    }

    /// Raises or lowers the shield, at once: lowering it delivers what it kept out.
    pub fn set_shield(&self, shield: bool) {
        if let State::Unbound(entry) = &mut *self.0.0.borrow_mut() {
            entry.shield = shield;
            return;
        }
        self.with_active(|run, scope| run.set_shield(scope, shield));
    }

    /// The scope's own cancellation, if it has been cancelled.
    pub fn cancellation(&self) -> Option<Cancelled> {
        match &*self.0.0.borrow() {
            State::Unbound(entry) => entry.cancelled.clone(),
            State::Exited { own, .. } => own.clone(),
            State::Active { .. } => self
                .with_active(|run, scope| run.tree.borrow().own(scope).cloned())
                .flatten(),
        }
    }

    /// Calls `f` if the scope has been entered and not been left, in the run of this thread.
    fn with_active<R>(&self, f: impl FnOnce(&Rc<Run>, u32) -> R) -> Option<R> {
        let State::Active { run: id, scope } = *self.0.0.borrow() else {
            return None;
        };
        // Not while the context is borrowed: an aborter that the cancel calls may end a guest's
        // run.
        let run = context::try_with(|run| run.filter(|run| run.id == id).cloned())?;
        Some(f(&run, scope))
    }
}

/// A reason, unless it is empty.
pub(crate) fn given(reason: Cow<'static, str>) -> Option<Cow<'static, str>> {
    Some(reason).filter(|reason| !reason.is_empty())
}

/// The cancellation that the running code, inside a run or not, asks for at `place`.
fn asked_for(
    source: CancelSource,
    reason: Option<Cow<'static, str>>,
    place: &'static Location<'static>,
) -> Cancelled {
    context::try_with(|run| {
        let Some(run) = run else {
            return Cancelled::new(source, reason, None, Some(place));
        };
        let cause = run.asked_for(source, reason, place);
        run.tree.borrow_mut().take_cause(cause)
    })
}

impl Default for CancelScope {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for CancelScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &*self.0.0.borrow() {
            State::Unbound(entry) if entry.cancelled.is_some() => "unbound, cancelled",
            State::Unbound(_) => "unbound",
            State::Exited { .. } => "exited",
            State::Active { .. } if self.cancellation().is_some() => "cancelled",
            State::Active { .. } => "active",
        };
        write!(f, "CancelScope({state}")?;
        let (relative, left) = match &*self.0.0.borrow() {
            State::Unbound(entry) => (entry.relative, self.left()),
            State::Active { .. } => (None, self.left()),
            State::Exited { .. } => (None, None),
        };
        if let Some(relative) = relative {
            write!(f, ", {relative:?} after entry")?;
        } else if let Some(left) = left {
            write!(f, ", {left:.1?} left")?;
        }
        f.write_str(")")
    }
}

/// Where a scope comes from.
pub(super) enum Source {
    Handle(Rc<Handle>),
    /// Nobody else knows about the scope, and it has a deadline.
    Deadline(Time, &'static Location<'static>),
    /// Nobody else knows about the scope, and it has a timeout.
    Timeout(After),
    /// The same under a shield.
    ShieldedDeadline(Time, &'static Location<'static>),
    ShieldedTimeout(After),
    /// Nobody else knows about the scope, and it is cancelled when an enclosing one is drained.
    Soft,
    /// Under a shield, with a timeout, and draining from the beginning.
    Cleanup(After),
}

pin_project! {
    /// A future inside a scope of its own.
    pub(super) struct InScope<F> {
        // Dropped before `place`: scopes inside are left first.
        #[pin]
        future: F,
        place: Place,
    }
}

/// Where the future of an [`InScope`] is; leaves the scope if it is dropped while inside.
struct Place(Where);

enum Where {
    /// Not inside yet; this is what will be entered.
    Before(Source),
    /// The run and the scope that it is in, and the handle to notify how the scope ended.
    Inside {
        run: u64,
        scope: u32,
        handle: Option<Rc<Handle>>,
    },
    /// It has ended, or has not even begun because the stack had no room.
    After,
}

impl<F> InScope<F> {
    pub(super) fn new(future: F, source: Source) -> Self {
        Self {
            future,
            place: Place(Where::Before(source)),
        }
    }

    /// Raises the shield of a scope that nobody else knows about, before it is entered.
    pub(super) fn shield(&mut self) {
        if let Where::Before(source) = &mut self.place.0 {
            match *source {
                Source::Deadline(deadline, place) => {
                    *source = Source::ShieldedDeadline(deadline, place);
                }
                Source::Timeout(after) => *source = Source::ShieldedTimeout(after),
                _ => {}
            }
        }
    }
}

impl<F: Future> InScope<F> {
    /// Returns what `catch` makes of the output and of how the scope was left. Two cases need no
    /// more than `pass`, which is given the value: a value that leaves a scope without a handle,
    /// and whatever leaves a scope that nobody has seen, because nothing in it has waited.
    #[inline]
    pub(super) fn poll<T, R>(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pass: impl FnOnce(T) -> R,
        catch: impl FnOnce(Left, Result<T>) -> Result<R>,
    ) -> Poll<Result<R>>
    where
        F: Future<Output = Result<T>>,
    {
        let this = self.project();
        let place = this.place;
        let run = &*context::with(Rc::clone);
        if let Where::Before(Source::Timeout(after)) = place.0 {
            if run.may_link_later(after.timeout) {
                run.check_depth()?;
                let pushed = Pushed::new(run, after, place);
                let output = this.future.poll(context);
                if output.is_pending() {
                    run.scope();
                }
                return match (pushed.pop(), output) {
                    (None, output) => output.map(|output| output.map(pass)),
                    // Its deadline has been watched since the scope was linked.
                    (Some(_), Poll::Pending) => Poll::Pending,
                    (Some(scope), output) => ended(run, place, scope, output, pass, catch),
                };
            }
        }
        let scope = match &place.0 {
            Where::Inside { run: id, scope, .. } => {
                assert!(
                    *id == run.id,
                    "a scope goes on in the run in which it was entered, and this is another run"
                );
                *scope
            }
            _ => place.enter(run)?,
        };
        let around = Around::new(run, scope);
        let output = this.future.poll(context);
        drop(around);
        ended(run, place, scope, output, pass, catch)
    }
}

/// The future inside has been polled: if it has ended, its scope is left, otherwise the scope has
/// to be watched.
#[inline]
fn ended<T, R>(
    run: &Run,
    place: &mut Place,
    scope: u32,
    output: Poll<Result<T>>,
    pass: impl FnOnce(T) -> R,
    catch: impl FnOnce(Left, Result<T>) -> Result<R>,
) -> Poll<Result<R>> {
    match output {
        Poll::Pending => {
            run.watch(scope);
            Poll::Pending
        }
        Poll::Ready(Ok(value)) if matches!(place.0, Where::Inside { handle: None, .. }) => {
            // Even if the scope was cancelled: the cancellation ends with it (S6), and nobody asks.
            place.0 = Where::After;
            run.leave_from_drop(scope);
            Poll::Ready(Ok(pass(value)))
        }
        Poll::Ready(output) => {
            let mut left = run.leave(scope);
            if let Where::Inside { handle, .. } = std::mem::replace(&mut place.0, Where::After) {
                left.handle = handle;
            }
            Poll::Ready(catch(left, output))
        }
    }
}

/// Takes a scope off the position when its future has been polled, which [`pop`](Self::pop) does,
/// or has panicked. If it has been linked meanwhile, notes its number.
struct Pushed<'a> {
    run: &'a Run,
    before: Before,
    place: &'a mut Place,
}

impl<'a> Pushed<'a> {
    #[inline]
    fn new(run: &'a Run, after: After, place: &'a mut Place) -> Self {
        let before = run.position.push(after);
        Self { run, before, place }
    }

    /// Returns the number of a scope that has been linked. Not done in `drop`, which is not inlined
    /// where it can happen in two ways.
    #[inline(always)]
    fn pop(self) -> Option<u32> {
        ManuallyDrop::new(self).leave()
    }

    #[inline(always)]
    fn leave(&mut self) -> Option<u32> {
        let around = |scope| self.run.tree.borrow().parent(scope);
        let scope = self.run.position.pop(self.before, around)?;
        let (run, handle) = (self.run.id, None);
        self.place.0 = Where::Inside { run, scope, handle };
        Some(scope)
    }
}

impl Drop for Pushed<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Restores the enclosing position when the inner future has been polled, or has panicked.
struct Around<'a> {
    run: &'a Run,
    here: Here,
}

impl<'a> Around<'a> {
    #[inline]
    fn new(run: &'a Run, scope: u32) -> Self {
        let here = run.position.replace(Here::at(scope));
        Self { run, here }
    }
}

impl Drop for Around<'_> {
    fn drop(&mut self) {
        self.run.position.replace(self.here);
    }
}

impl Place {
    /// Enters the scope.
    fn enter(&mut self, run: &Run) -> Result<u32> {
        let Where::Before(source) = std::mem::replace(&mut self.0, Where::After) else {
            panic!("a future is not polled after it has ended");
        };
        let (scope, handle) = source.enter(run)?;
        let run = run.id;
        self.0 = Where::Inside { run, scope, handle };
        Ok(scope)
    }

    /// The future was dropped before its end, by a combinator or by its nursery.
    #[inline(never)]
    fn leave(&mut self) {
        let Where::Inside { run, scope, handle } = &mut self.0 else {
            return;
        };
        context::try_with(|current| {
            if let Some(run) = current.filter(|current| current.id == *run) {
                let mut left = run.leave(*scope);
                left.handle = handle.take();
                left.close(false);
            }
        });
    }
}

impl Drop for Place {
    #[inline]
    fn drop(&mut self) {
        if let Where::Inside { .. } = self.0 {
            self.leave();
        }
    }
}

impl Source {
    /// Enters the scope; returns the handle to notify how it ended, if there is one.
    fn enter(self, run: &Run) -> Result<(u32, Option<Rc<Handle>>)> {
        run.check_depth()?;
        match self {
            Self::Handle(handle) => Ok((handle.enter(run)?, Some(handle))),
            Self::Deadline(deadline, place) => Ok((Self::until(run, deadline, place, false), None)),
            Self::ShieldedDeadline(deadline, place) => {
                Ok((Self::until(run, deadline, place, true), None))
            }
            Self::Timeout(after) => Ok((Self::after(run, after, false), None)),
            Self::ShieldedTimeout(after) => Ok((Self::after(run, after, true), None)),
            Self::Soft => {
                let scope = run.enter(Entry {
                    soft: true,
                    ..Entry::default()
                });
                Ok((scope, None))
            }
            Self::Cleanup(after) => {
                let scope = Self::after(run, after, true);
                let reason = Some("cleaning up".into());
                let place = Some(after.place);
                let asked = Cancelled::new(CancelSource::Drain, reason, run.task_name(), place);
                run.drain(scope, asked, Duration::MAX);
                Ok((scope, None))
            }
        }
    }

    fn until(run: &Run, deadline: Time, place: &'static Location<'static>, shield: bool) -> u32 {
        run.enter(Entry {
            deadline,
            place: Some(place),
            shield,
            ..Entry::default()
        })
    }

    fn after(run: &Run, after: After, shield: bool) -> u32 {
        run.enter(Entry {
            relative: Some(after.timeout),
            place: Some(after.place),
            shield,
            ..Entry::default()
        })
    }
}

impl Handle {
    /// Enters the scope, once.
    fn enter(&self, run: &Run) -> Result<u32> {
        let mut state = self.0.borrow_mut();
        let State::Unbound(entry) = &mut *state else {
            let why = "a cancel scope is entered once: make a new one for each use";
            return Err(Usage::new(why).into());
        };
        if entry.is_plain() {
            let scope = run.enter_plain();
            *state = State::Active { run: run.id, scope };
            return Ok(scope);
        }
        let drain = entry.drain.take();
        let entry = std::mem::take(entry);
        drop(state);
        // Asks the clock, which may be user code: nothing is borrowed here.
        let scope = run.enter(entry);
        *self.0.borrow_mut() = State::Active { run: run.id, scope };
        if let Some(drain) = drain {
            let (asked, grace) = *drain;
            run.drain(scope, asked, grace);
        }
        Ok(scope)
    }
}

impl Left {
    /// Tells the handle how the scope ended; without a handle that could be asked for it, returns
    /// the scope's own cancellation.
    #[inline]
    pub(crate) fn close(self, caught: bool) -> Option<Cancelled> {
        let Some(handle) = self.handle else {
            return self.own;
        };
        *handle.0.borrow_mut() = State::Exited {
            own: self.own,
            caught,
            shield: self.shield,
            deadline: self.deadline,
        };
        None
    }

    /// Removes this scope's cancellations from a list of errors, except those inside groups.
    pub(crate) fn catch_among(&mut self, errors: &mut Vec<Error>) {
        if self.own.is_some() && !self.outer {
            let before = errors.len();
            errors.retain(|error| error.as_cancelled().is_none());
            self.caught |= errors.len() < before;
        }
    }

    /// Removes this scope's cancellations from `result` (semantics S1, S5): the value if there is
    /// one, `None` if nothing is left of the error. Also returns the scope's own cancellation, if
    /// it was caught and nobody has a handle.
    #[inline]
    pub(crate) fn catch<T>(self, result: Result<T>) -> (Result<Option<T>>, Option<Cancelled>) {
        match result {
            Ok(value) => {
                self.close(false);
                (Ok(Some(value)), None)
            }
            Err(error) => {
                let (rest, own) = self.catch_error(error);
                (rest.map_or(Ok(None), Err), own)
            }
        }
    }

    /// The same for an error; returns what is left of it.
    fn catch_error(self, error: Error) -> (Option<Error>, Option<Cancelled>) {
        if self.own.is_none() || self.outer {
            self.close(false);
            return (Some(error), None);
        }
        // Mostly it is the cancellation and nothing else.
        if error.as_cancelled().is_some() {
            return (None, self.close(true));
        }
        let (cancelled, rest) = error.split(|leaf| leaf.as_cancelled().is_some());
        let caught = self.caught || cancelled.is_some();
        (rest, self.close(caught).filter(|_| caught))
    }
}

/// What is left of an error without its cancellations (semantics S5).
#[inline]
pub(crate) fn without_cancellations(error: Error) -> Option<Error> {
    match error.as_cancelled() {
        // Mostly the error is a cancellation and nothing else.
        Some(_) => None,
        None => error.split(|leaf| leaf.as_cancelled().is_some()).1,
    }
}

pin_project! {
    /// The future of [`CancelScope::enter`].
    #[must_use = "futures do nothing unless polled"]
    pub struct Enter<F> {
        #[pin]
        inside: InScope<F>,
    }
}

impl<F: Future<Output = Result<T>>, T> Future for Enter<F> {
    type Output = Result<Option<T>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let inside = self.project().inside;
        inside.poll(context, Some, |left, result| left.catch(result).0)
    }
}

impl<F> fmt::Debug for Enter<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Enter")
    }
}
