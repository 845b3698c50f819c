//! A limited number of tokens, each lent to a borrower.
//!
//! | If                  | then                                                               |
//! |---------------------|--------------------------------------------------------------------|
//! | a token is dropped  | the first in the queue has it, and its borrower has none            |
//! | a token is forgotten, by `forget` or by a leak | it stays borrowed until it is released on behalf of its borrower |
//! | a future is dropped after it was handed a token | the token goes to the next in the queue |
//! | the total is raised | those who have waited longest have the new tokens at once          |
//! | the total is lowered | nobody loses a token; later tasks wait longer                     |
//!
//! 1. A token is free only if nobody who could be claimed waits.
//! 2. `named` holds the borrowers that were named, from the beginning of their wait until they give
//!    the token back. A borrower that waits is refused a second wait only while the first can still
//!    be claimed: a future that was forgotten keeps its borrower's name until its task has ended, as
//!    it keeps its place in the queue (K9).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::wait_list::{Leaving, Outcome, WaitList, Waiter};
use crate::checkpoint::enter_operation;
use crate::error::{Error, Result, Usage, WouldBlock};

/// Limits how many tasks do something at the same time.
///
/// A task borrows a token first, and gives it back by dropping it. The limit can be changed while
/// tokens are borrowed.
///
/// By default a token has no named borrower, so one task may borrow several. If the task that
/// acquires is not the one that does the work, as with a thread, or if somebody must not hold two
/// tokens, name a [`Borrower`]: it has at most one.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use std::cell::Cell;
/// use trio::sync::CapacityLimiter;
///
/// let limiter = CapacityLimiter::new(3);
/// let (most, now) = (Cell::new(0), Cell::new(0));
/// let (limiter, most, now) = (&limiter, &most, &now);
/// trio::open_nursery(async |nursery| {
///     for _ in 0..10 {
///         nursery.start_soon(async move {
///             let _token = limiter.acquire().await?;
///             now.set(now.get() + 1);
///             most.set(most.get().max(now.get()));
///             trio::checkpoint().await?;
///             now.set(now.get() - 1);
///             Ok(())
///         });
///     }
///     Ok(())
/// })
/// .await?;
/// assert_eq!(most.get(), 3);
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
pub struct CapacityLimiter {
    total: Cell<usize>,
    borrowed: Cell<usize>,
    named: RefCell<HashMap<u64, Named, ByNumber>>,
    queue: WaitList<Option<Request>>,
    /// How many named borrowers have begun to wait: the numbers of their requests.
    requests: Cell<u64>,
}

/// Whether a named borrower waits or has a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    /// It has made the request of this number.
    Waits(u64),
    Holds,
}

/// What a named borrower waits with. The number tells its future from another of the same borrower
/// that came after the wait was over, so that a future never takes back a name that is not its own.
#[derive(Clone, Copy, Debug)]
struct Request {
    borrower: Borrower,
    number: u64,
}

/// The borrower of a token: it stands for whatever the caller wants.
///
/// Copies are the same borrower; two calls of [`new`](Self::new) make two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Borrower {
    number: u64,
    /// The numbers are unique within a thread only, so a borrower must not leave it.
    thread: PhantomData<Rc<()>>,
}

/// A snapshot of a [`CapacityLimiter`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CapacityLimiterStatistics {
    /// How many tokens are borrowed.
    pub borrowed_tokens: usize,
    /// How many may be borrowed at the same time; `usize::MAX` if there is no limit.
    pub total_tokens: usize,
    /// The named borrowers that have a token, in the order in which they were made.
    pub borrowers: Vec<Borrower>,
    /// How many tasks wait for a token.
    pub tasks_waiting: usize,
}

impl Borrower {
    /// A new borrower, different from all others.
    pub fn new() -> Self {
        thread_local! {
            static NEXT: Cell<u64> = const { Cell::new(1) };
        }
        let number = NEXT.get();
        NEXT.set(number + 1);
        Self {
            number,
            thread: PhantomData,
        }
    }
}

impl Default for Borrower {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Borrower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Borrower({})", self.number)
    }
}

impl CapacityLimiter {
    /// A limiter with this many tokens. With zero, nobody passes until there are some.
    pub const fn new(total_tokens: usize) -> Self {
        Self {
            total: Cell::new(total_tokens),
            borrowed: Cell::new(0),
            named: RefCell::new(HashMap::with_hasher(ByNumber)),
            queue: WaitList::new(),
            requests: Cell::new(0),
        }
    }

    /// A limiter without a limit, until it is given one.
    pub const fn unbounded() -> Self {
        Self::new(usize::MAX)
    }

    /// How many tokens may be borrowed at the same time; `usize::MAX` if there is no limit.
    pub fn total_tokens(&self) -> usize {
        self.total.get()
    }

    /// Changes how many tokens may be borrowed. When this returns, those who wait have the new
    /// ones; nobody loses a token.
    pub fn set_total_tokens(&self, total_tokens: usize) {
        self.total.set(total_tokens);
        self.hand_over();
    }

    /// How many tokens are borrowed.
    pub fn borrowed_tokens(&self) -> usize {
        self.borrowed.get()
    }

    /// How many tokens can be borrowed without waiting; negative if more are borrowed than there
    /// are, because the total was lowered. `isize::MAX` if there is no limit.
    pub fn available_tokens(&self) -> isize {
        let number = |count: usize| isize::try_from(count).unwrap_or(isize::MAX);
        match self.total.get() {
            usize::MAX => isize::MAX,
            total => number(total) - number(self.borrowed.get()),
        }
    }

    /// Waits for a token, and borrows it.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. `Cancelled` means that no token was borrowed.
    ///
    /// # Errors
    ///
    /// `Cancelled` only.
    ///
    /// # Panics
    ///
    /// When it is polled outside of a run.
    pub fn acquire(&self) -> CapacityAcquire<'_> {
        CapacityAcquire {
            limiter: self,
            borrower: None,
            waiter: None,
        }
    }

    /// Waits for a token for `borrower`, which must neither have one nor wait for one.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. `Cancelled` means that no token was borrowed.
    ///
    /// # Errors
    ///
    /// `Cancelled`. [`Usage`] if the borrower has a token of this limiter, or waits for one: it
    /// could wait for itself.
    ///
    /// # Panics
    ///
    /// When it is polled outside of a run.
    pub fn acquire_on_behalf_of(&self, borrower: Borrower) -> CapacityAcquire<'_> {
        CapacityAcquire {
            limiter: self,
            borrower: Some(borrower),
            waiter: None,
        }
    }

    /// Borrows a token if there is one without waiting.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`] if there is none.
    #[doc(alias = "acquire_nowait")]
    pub fn try_acquire(&self) -> Result<CapacityToken<'_>, WouldBlock> {
        if self.has_room() {
            Ok(self.lend(None))
        } else {
            Err(WouldBlock::new())
        }
    }

    /// Borrows a token for `borrower` if there is one without waiting.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`] if there is none. [`Usage`] if the borrower has a token of this limiter, or
    /// waits for one.
    #[doc(alias = "acquire_on_behalf_of_nowait")]
    pub fn try_acquire_on_behalf_of(&self, borrower: Borrower) -> Result<CapacityToken<'_>> {
        self.refuse_second(borrower)?;
        if self.has_room() {
            Ok(self.lend(Some(borrower)))
        } else {
            Err(WouldBlock::new().into())
        }
    }

    /// Gives back the token of `borrower`, whose [`CapacityToken`] must have been
    /// [forgotten](CapacityToken::forget).
    ///
    /// # Errors
    ///
    /// [`Usage`] if the borrower has no token of this limiter.
    pub fn release_on_behalf_of(&self, borrower: Borrower) -> Result<()> {
        if self.take_back(Some(borrower)) {
            return Ok(());
        }
        Err(Usage::new(format!(
            "{borrower:?} gives back a token that it has not borrowed from this limiter"
        ))
        .into())
    }

    /// How many tokens there are, who has them, and how many wait.
    pub fn statistics(&self) -> CapacityLimiterStatistics {
        let named = self.named.borrow();
        let holding = named.iter().filter(|(_, named)| **named == Named::Holds);
        let mut borrowers: Vec<Borrower> = holding
            .map(|(number, _)| Borrower {
                number: *number,
                thread: PhantomData,
            })
            .collect();
        borrowers.sort_unstable();
        CapacityLimiterStatistics {
            borrowed_tokens: self.borrowed.get(),
            total_tokens: self.total.get(),
            borrowers,
            tasks_waiting: self.queue.waiting(),
        }
    }

    #[inline]
    fn has_room(&self) -> bool {
        self.borrowed.get() < self.total.get()
    }

    fn refuse_second(&self, borrower: Borrower) -> Result<()> {
        let does = match self.named.borrow().get(&borrower.number) {
            None => return Ok(()),
            Some(Named::Holds) => "has",
            Some(Named::Waits(_)) if !self.is_queued(borrower) => return Ok(()),
            Some(Named::Waits(_)) => "waits for",
        };
        Err(Usage::new(format!(
            "{borrower:?} {does} a token of this limiter already, and would wait for itself"
        ))
        .into())
    }

    /// Whether the borrower, which `named` has as one that waits, can still be handed a token. A wait
    /// that is over stays in `named` as long as its future lives: for ever if that was forgotten.
    fn is_queued(&self, borrower: Borrower) -> bool {
        let is = |request: &Option<Request>| request.is_some_and(|it| it.borrower == borrower);
        self.queue.find_or_pass_over(is)
    }

    /// Lends a token if one is free.
    #[inline]
    fn lend(&self, borrower: Option<Borrower>) -> CapacityToken<'_> {
        self.count(borrower);
        CapacityToken {
            limiter: self,
            borrower,
        }
    }

    #[inline]
    fn count(&self, borrower: Option<Borrower>) {
        self.borrowed.set(self.borrowed.get() + 1);
        if let Some(borrower) = borrower {
            let mut named = self.named.borrow_mut();
            named.insert(borrower.number, Named::Holds);
        }
    }

    /// Takes back a token, if the borrower has one; a borrower that was not named always does.
    #[inline]
    fn take_back(&self, borrower: Option<Borrower>) -> bool {
        if let Some(borrower) = borrower {
            let mut named = self.named.borrow_mut();
            if named.get(&borrower.number) != Some(&Named::Holds) {
                return false;
            }
            named.remove(&borrower.number);
        }
        self.borrowed.set(self.borrowed.get() - 1);
        self.hand_over();
        true
    }

    /// Lends the free tokens to those who have waited longest.
    #[inline]
    fn hand_over(&self) {
        while self.has_room() {
            let Some(request) = self.queue.claim_first(|request| *request) else {
                return;
            };
            self.count(request.map(|request| request.borrower));
        }
    }

    /// Notes that the borrower, if it is named, waits from now on.
    fn request(&self, borrower: Option<Borrower>) -> Option<Request> {
        let borrower = borrower?;
        let number = self.requests.get();
        self.requests.set(number + 1);
        let mut named = self.named.borrow_mut();
        named.insert(borrower.number, Named::Waits(number));
        Some(Request { borrower, number })
    }

    /// Forgets a request that no longer waits and was lent no token.
    fn withdraw(&self, request: Option<Request>) {
        let Some(Request { borrower, number }) = request else {
            return;
        };
        let mut named = self.named.borrow_mut();
        if named.get(&borrower.number) == Some(&Named::Waits(number)) {
            named.remove(&borrower.number);
        }
    }
}

impl fmt::Debug for CapacityLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CapacityLimiter")
            .field("borrowed_tokens", &self.borrowed_tokens())
            .field("total_tokens", &self.total_tokens())
            .field("tasks_waiting", &self.queue.waiting())
            .finish()
    }
}

/// The future of [`CapacityLimiter::acquire`] and [`CapacityLimiter::acquire_on_behalf_of`].
#[must_use = "futures do nothing unless polled"]
pub struct CapacityAcquire<'a> {
    limiter: &'a CapacityLimiter,
    borrower: Option<Borrower>,
    waiter: Option<Waiter>,
}

impl<'a> Future for CapacityAcquire<'a> {
    type Output = Result<CapacityToken<'a>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let (limiter, borrower) = (this.limiter, this.borrower);
        if this.waiter.is_some() {
            match ready!(Waiter::poll(&mut this.waiter, &limiter.queue, context)) {
                Outcome::Claimed(_) => {
                    return Poll::Ready(Ok(CapacityToken { limiter, borrower }));
                }
                Outcome::Cancelled(cancelled, request) => {
                    limiter.withdraw(request);
                    return Poll::Ready(Err(Error::cancelled(cancelled)));
                }
                Outcome::Lapsed(request) => limiter.withdraw(request),
                Outcome::Moved(..) => unreachable!("nobody moves who waits for a limiter"),
            }
        }
        ready!(enter_operation(context))?;
        if let Some(borrower) = borrower {
            limiter.refuse_second(borrower)?;
        }
        if limiter.has_room() {
            return Poll::Ready(Ok(limiter.lend(borrower)));
        }
        let request = limiter.request(borrower);
        let what = "CapacityLimiter::acquire";
        Waiter::join(&mut this.waiter, &limiter.queue, context, what, request);
        Poll::Pending
    }
}

impl Drop for CapacityAcquire<'_> {
    #[inline]
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.take() else {
            return;
        };
        match waiter.leave(&self.limiter.queue) {
            Leaving::Claimed(_) => {
                self.limiter.take_back(self.borrower);
            }
            Leaving::Unclaimed(request) => self.limiter.withdraw(request),
            Leaving::Moved(..) => unreachable!("nobody moves who waits for a limiter"),
        }
    }
}

impl fmt::Debug for CapacityAcquire<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CapacityAcquire")
    }
}

/// A token of a [`CapacityLimiter`]; dropping it gives it back.
#[must_use = "the token is given back when it is dropped"]
pub struct CapacityToken<'a> {
    limiter: &'a CapacityLimiter,
    borrower: Option<Borrower>,
}

impl CapacityToken<'_> {
    /// The named borrower, if there is one.
    pub fn borrower(&self) -> Option<Borrower> {
        self.borrower
    }

    /// Keeps the token borrowed until it is released [for its
    /// borrower](CapacityLimiter::release_on_behalf_of); for ever, if it has none.
    pub fn forget(self) {
        let _ = ManuallyDrop::new(self);
    }
}

impl Drop for CapacityToken<'_> {
    #[inline]
    fn drop(&mut self) {
        self.limiter.take_back(self.borrower);
    }
}

impl fmt::Debug for CapacityToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_tuple("CapacityToken");
        if let Some(borrower) = &self.borrower {
            text.field(borrower);
        }
        text.finish()
    }
}

/// Spreads consecutive numbers. The numbers are this module's own, so nobody can choose them to
/// collide.
#[derive(Clone, Copy, Debug, Default)]
struct ByNumber;

impl BuildHasher for ByNumber {
    type Hasher = NumberHasher;

    fn build_hasher(&self) -> NumberHasher {
        NumberHasher(0)
    }
}

#[derive(Debug)]
struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
