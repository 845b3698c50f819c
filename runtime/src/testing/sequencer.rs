//! Steps of several tasks in the order that a test wants.
//!
//! 1. Turn 0 comes at once; turn n comes when the [`Turn`] of n - 1 has been dropped, for whatever
//!    reason.
//! 2. A number is taken when its future is polled for the first time, and only once.
//! 3. A wait that ends without its turn, because it was cancelled or its future was dropped, breaks
//!    the sequence: all who wait, and all who come later, get an error, because their turns would
//!    never come.
//! 4. A turn that is forgotten never ends, and neither does the wait for the next.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::checkpoint::enter_operation;
use crate::error::{Error, Result, Usage};
use crate::wait::Parked;

/// Makes the steps of several tasks happen in a given order.
///
/// Each step waits for its [turn](Self::turn) by number, and the turn lasts until the guard is
/// dropped.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use std::cell::RefCell;
/// use trio::testing::Sequencer;
///
/// let (sequencer, order) = (Sequencer::new(), RefCell::new(Vec::new()));
/// let step = async |number, what| {
///     let _turn = sequencer.turn(number).await?;
///     order.borrow_mut().push(what);
///     Ok::<(), trio::Error>(())
/// };
/// trio::open_nursery(async |nursery| {
///     nursery.start_soon(async {
///         step(1, "b").await?;
///         step(3, "d").await
///     });
///     nursery.start_soon(async {
///         step(0, "a").await?;
///         step(2, "c").await
///     });
///     Ok(())
/// })
/// .await?;
/// assert_eq!(order.take(), ["a", "b", "c", "d"]);
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[derive(Default)]
pub struct Sequencer {
    /// Every number that has been asked for; with the wait for it, if its turn has not come.
    taken: RefCell<BTreeMap<u32, Option<Parked>>>,
    /// The number whose turn it is.
    now: Cell<u32>,
    broken: Cell<bool>,
}

impl Sequencer {
    /// A sequence that begins with turn 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits until all turns before `number` have ended; `number` lasts until the guard is dropped.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. If it is cancelled, or dropped while it waits, its turn never comes, and the
    /// sequence is broken.
    ///
    /// # Errors
    ///
    /// [`Usage`] if `number` has been asked for before, or if the sequence is broken.
    #[doc(alias = "__call__")]
    pub fn turn(&self, number: u32) -> WaitTurn<'_> {
        WaitTurn {
            sequencer: self,
            number,
            state: State::New,
        }
    }

    fn begin(&self, number: u32) -> Result<()> {
        if self.broken.get() {
            return Err(broken());
        }
        match self.taken.borrow_mut().entry(number) {
            Entry::Vacant(entry) => {
                entry.insert(None);
                Ok(())
            }
            Entry::Occupied(_) => {
                let text = format!(
                    "turn {number} of a sequencer has been asked for twice: each number is one step"
                );
                Err(Usage::new(text).into())
            }
        }
    }

    /// The next turn comes.
    fn advance(&self) {
        self.now.set(self.now.get() + 1);
        if let Some(Some(parked)) = self.taken.borrow().get(&self.now.get()) {
            parked.with(|run| run.finish_wait(parked.wait()));
        }
    }

    fn break_off(&self) {
        self.broken.set(true);
        for parked in self.taken.borrow().values().flatten() {
            parked.with(|run| run.finish_wait(parked.wait()));
        }
    }
}

fn broken() -> Error {
    Usage::new(
        "the sequence is broken: one of its steps was cancelled while it waited for its turn, \
         so those behind it cannot come",
    )
    .into()
}

impl fmt::Debug for Sequencer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequencer")
            .field("turn", &self.now.get())
            .field("broken", &self.broken.get())
            .finish_non_exhaustive()
    }
}

/// The future of [`Sequencer::turn`].
#[must_use = "futures do nothing unless polled"]
pub struct WaitTurn<'a> {
    sequencer: &'a Sequencer,
    number: u32,
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    New,
    /// The number has been taken.
    Waiting,
    Ended,
}

impl<'a> Future for WaitTurn<'a> {
    type Output = Result<Turn<'a>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self {
            sequencer, number, ..
        } = *self;
        assert!(
            self.state != State::Ended,
            "a future is not polled after its end"
        );
        if self.state == State::New {
            if let Err(error) = sequencer.begin(number) {
                self.state = State::Ended;
                return Poll::Ready(Err(error));
            }
            self.state = State::Waiting;
        }
        let parked = sequencer
            .taken
            .borrow_mut()
            .get_mut(&number)
            .and_then(Option::take);
        let cancelled = match &parked {
            Some(parked) => match parked.poll_woken(context) {
                Poll::Ready(cancelled) => cancelled.map(Error::cancelled),
                Poll::Pending => None,
            },
            None => ready!(enter_operation(context)).err(),
        };
        // A turn that has come takes precedence over a cancel, which the next checkpoint reports.
        let has_come = sequencer.now.get() == number && parked.is_some();
        let result = match cancelled {
            Some(error) if !has_come => Err(error),
            _ if sequencer.broken.get() => Err(broken()),
            _ if sequencer.now.get() == number => Ok(Turn { sequencer }),
            _ => {
                let parked = parked.unwrap_or_else(|| Parked::new(context, "Sequencer::turn"));
                let mut taken = sequencer.taken.borrow_mut();
                taken.insert(number, Some(parked));
                return Poll::Pending;
            }
        };
        self.state = State::Ended;
        if result.is_err() {
            sequencer.break_off();
        }
        Poll::Ready(result)
    }
}

impl Drop for WaitTurn<'_> {
    fn drop(&mut self) {
        if self.state == State::Waiting {
            let mut taken = self.sequencer.taken.borrow_mut();
            let parked = taken.get_mut(&self.number).and_then(Option::take);
            drop(taken);
            drop(parked);
            self.sequencer.break_off();
        }
    }
}

impl fmt::Debug for WaitTurn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WaitTurn({})", self.number)
    }
}

/// A turn in a [`Sequencer`]; dropping it lets the next one begin.
#[must_use = "the turn ends when this is dropped: bind it to a name"]
pub struct Turn<'a> {
    sequencer: &'a Sequencer,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.sequencer.advance();
    }
}

impl fmt::Debug for Turn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Turn({})", self.sequencer.now.get())
    }
}
