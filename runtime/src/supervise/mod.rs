//! What happens when a task fails: its nursery gets the failure, it is ignored, or the task is
//! restarted.
//!
//! A [`Supervisor`] is a policy, and does not run by itself. The history of one task, its restarts
//! and delays, is in the future that [`Supervisor::run`] returns, and is dropped with it; only the
//! sink is shared. Delays follow the clock of the run and jitter follows a seed, so that a test in
//! virtual time sees the same every time.

mod backoff;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

pub use backoff::Backoff;
use trio_platform::Time;

use crate::context;
use crate::error::{Error, Result};
use crate::time::{current_time, sleep};

/// A policy for tasks that fail: let the failure out, ignore it, or restart the task.
///
/// By default an error of a child cancels its siblings and comes out of the nursery, and mostly
/// that is right: the code that started the work gets it. A supervisor is for other cases, such as
/// workers that may come and go, and connections that are made again. One supervisor can look after
/// many children, each of which is judged separately (*one for one*).
///
/// - A **cancellation** is not a failure. It passes through, and nothing is restarted after it.
/// - A **panic** is a mistake in the program, and is not absorbed: it goes to the nursery as
///   always.
/// - No failure is **lost**: each is passed to the supervisor's sink, or comes out.
///
/// Clones share the sink; each call of [`run`](Self::run) counts its restarts by itself.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use std::cell::Cell;
/// use std::time::Duration;
/// use trio::{Backoff, Error, Supervisor, open_nursery};
///
/// let attempts = Cell::new(0);
/// let link = async || {
///     attempts.set(attempts.get() + 1);
///     if attempts.get() < 3 { Err(Error::msg("connection refused")) } else { Ok(()) }
/// };
/// let backoff = Backoff::new(Duration::from_millis(1), Duration::from_secs(10));
/// let supervisor = Supervisor::restart(backoff)
///     .at_most(5, Duration::from_secs(60))
///     .on_failure(|failure| println!("{failure}"));
/// open_nursery(async |nursery| {
///     nursery.start_soon(supervisor.run(&link));
///     Ok(())
/// })
/// .await?;
/// assert_eq!(attempts.get(), 3);
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[derive(Clone)]
#[must_use = "a supervisor does nothing until `run`"]
pub struct Supervisor<'env> {
    remedy: Remedy,
    limit: Option<Limit>,
    sink: Rc<dyn Fn(&Failure<'_>) + 'env>,
}

#[derive(Clone, Debug)]
enum Remedy {
    Propagate,
    Ignore,
    Restart(Backoff),
}

#[derive(Clone, Copy, Debug)]
struct Limit {
    restarts: u32,
    within: Duration,
}

impl<'env> Supervisor<'env> {
    /// Lets failures out, as if there were no supervisor, after telling the sink.
    pub fn propagate() -> Self {
        Self::new(Remedy::Propagate)
    }

    /// Ends the task that failed, and nothing else.
    pub fn ignore() -> Self {
        Self::new(Remedy::Ignore)
    }

    /// Restarts the task after each failure, with the delays of `backoff`. The delays start over
    /// when the task has run for longer than the last of them, or for the period of
    /// [`at_most`](Self::at_most) if that is longer.
    pub fn restart(backoff: Backoff) -> Self {
        Self::new(Remedy::Restart(backoff))
    }

    fn new(remedy: Remedy) -> Self {
        Self {
            remedy,
            limit: None,
            sink: Rc::new(|failure| eprintln!("trio: {failure}")),
        }
    }

    /// Gives up, and lets the failure out, if the task would have to be restarted more than
    /// `restarts` times within the period `within`.
    pub fn at_most(mut self, restarts: u32, within: Duration) -> Self {
        self.limit = Some(Limit { restarts, within });
        self
    }

    /// Calls `sink` with every failure, instead of printing a line to standard error.
    pub fn on_failure(mut self, sink: impl Fn(&Failure<'_>) + 'env) -> Self {
        self.sink = Rc::new(sink);
        self
    }

    /// Runs the futures that `make` returns, one at a time, until one ends well or the policy gives
    /// up.
    ///
    /// # Cancellation
    ///
    /// Not a cancel point by itself, except for the delay between a failure and the next attempt. A
    /// task that fails while it is being cancelled is not restarted: its failure comes out.
    ///
    /// # Errors
    ///
    /// `Cancelled` if that is how the task ended. The failure, if the policy lets it out; if the task
    /// has failed too often, in a group that says so.
    pub fn run<F>(&self, mut make: F) -> impl Future<Output = Result<()>> + use<'env, F>
    where
        F: AsyncFnMut() -> Result<()>,
    {
        let mut watch = Watch::new(self);
        async move {
            loop {
                let begun = current_time();
                let Err(error) = make().await else {
                    return Ok(());
                };
                match watch.judge(error, begun)? {
                    Some(delay) => sleep(delay).await?,
                    None => return Ok(()),
                }
            }
        }
    }

    /// Runs `future`, which cannot be made again: a policy that would restart it lets the failure
    /// out.
    ///
    /// # Cancellation
    ///
    /// Not a cancel point by itself.
    ///
    /// # Errors
    ///
    /// As for [`run`](Self::run).
    pub fn run_once<F>(&self, future: F) -> impl Future<Output = Result<()>> + use<'env, F>
    where
        F: Future<Output = Result<()>>,
    {
        let mut once = self.clone();
        if let Remedy::Restart(_) = once.remedy {
            once.remedy = Remedy::Propagate;
        }
        let mut watch = Watch::new(&once);
        async move {
            match future.await {
                Ok(()) => Ok(()),
                Err(error) => watch.judge(error, Time::PAST).map(drop),
            }
        }
    }
}

impl fmt::Debug for Supervisor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor")
            .field("remedy", &self.remedy)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// A failure, as passed to the sink of a [`Supervisor`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Failure<'a> {
    /// What went wrong.
    pub error: &'a Error,
    /// The name of the task, if the sink is called in one.
    pub task: Option<Cow<'static, str>>,
    /// How often the task has been restarted before; with [`at_most`](Supervisor::at_most), within
    /// its period.
    pub restarts: u32,
    /// What the supervisor does about it.
    pub verdict: Verdict,
}

/// What a [`Supervisor`] does about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The failure comes out, as a rule into a nursery, which it cancels.
    Propagate,
    /// The task has ended, and nobody else is concerned.
    Ignore,
    /// The task is restarted after this delay.
    Restart(Duration),
}

impl fmt::Display for Failure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let task = self.task.as_deref().unwrap_or("a task");
        write!(f, "{task} failed ({})", self.error)?;
        match self.verdict {
            Verdict::Propagate => Ok(()),
            Verdict::Ignore => f.write_str("; it is not begun anew"),
            Verdict::Restart(delay) => write!(f, "; it begins anew in {delay:?}"),
        }
    }
}

/// One task under supervision.
struct Watch<'env> {
    policy: Supervisor<'env>,
    /// The times of its restarts, as far back as the limit counts.
    restarts: VecDeque<Time>,
    count: u32,
    /// The delay before the current attempt.
    delay: Duration,
}

impl<'env> Watch<'env> {
    fn new(policy: &Supervisor<'env>) -> Self {
        Self {
            policy: policy.clone(),
            restarts: VecDeque::new(),
            count: 0,
            delay: Duration::ZERO,
        }
    }

    /// What to do about an error: restart after a delay, or end well.
    fn judge(&mut self, error: Error, begun: Time) -> Result<Option<Duration>> {
        let cancelled = context::with(|run| run.cancelled().is_some());
        if cancelled || error.is_cancelled() {
            return Err(error);
        }
        let (verdict, restarts) = self.verdict(begun);
        (self.policy.sink)(&Failure {
            error: &error,
            task: context::with(|run| run.task_name()),
            restarts,
            verdict,
        });
        match (verdict, &self.policy.remedy) {
            (Verdict::Restart(delay), _) => Ok(Some(delay)),
            (Verdict::Ignore, _) => Ok(None),
            (Verdict::Propagate, Remedy::Restart(_)) => {
                let times = if restarts == 1 { "time" } else { "times" };
                let message = format!("given up after being begun anew {restarts} {times}");
                Err(Error::group(message, vec![error]))
            }
            (Verdict::Propagate, _) => Err(error),
        }
    }

    /// What the policy says, and how often the task has been restarted lately.
    fn verdict(&mut self, begun: Time) -> (Verdict, u32) {
        let Remedy::Restart(backoff) = &mut self.policy.remedy else {
            let verdict = match self.policy.remedy {
                Remedy::Ignore => Verdict::Ignore,
                _ => Verdict::Propagate,
            };
            return (verdict, 0);
        };
        let now = current_time();
        let mut healthy = self.delay;
        let mut recent = self.count;
        if let Some(Limit { restarts, within }) = self.policy.limit {
            healthy = healthy.max(within);
            self.restarts
                .retain(|time| now.saturating_since(*time) < within);
            recent = u32::try_from(self.restarts.len()).unwrap_or(u32::MAX);
            if recent >= restarts {
                return (Verdict::Propagate, recent);
            }
            self.restarts.push_back(now);
        }
        if now.saturating_since(begun) > healthy {
            backoff.reset();
        }
        self.count = self.count.saturating_add(1);
        self.delay = backoff.next_delay();
        (Verdict::Restart(self.delay), recent)
    }
}
