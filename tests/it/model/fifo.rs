//! Everything that is acquired and released, first come first served: locks, semaphores, limiters
//! and reader-writer locks against one plain model.
//!
//! The model gets each call when it is made, and says at once who holds what: so it predicts the
//! outcome of each acquire, and after each step the length of the queue.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use trio::sync::{
    CapacityLimiter, CapacityToken, Lock, LockGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
    Semaphore, SemaphorePermit,
};
use trio::{CancelScope, Error, Result, checkpoint, open_nursery, sleep};

use super::{Random, Verdict, check, simulate};
use crate::support::secs;

const TASKS: usize = 5;

/// How something is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Together with others, as far as the capacity allows.
    Shared,
    Alone,
}

#[derive(Clone, Debug)]
struct Step {
    task: usize,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Yield,
    Sleep(u64),
    Acquire(Kind),
    TryAcquire(Kind),
    /// Begins to acquire, yields this often, and drops the future.
    AcquireAndDrop(Kind, u64),
    /// Releases what the task has held longest.
    Release,
    Cancel(usize),
    SetTotal(usize),
}

/// The primitive that is tested.
trait Subject {
    type Guard<'a>
    where
        Self: 'a;

    async fn acquire(&self, kind: Kind) -> Result<Self::Guard<'_>>;
    fn try_acquire(&self, kind: Kind) -> Option<Self::Guard<'_>>;
    fn waiting(&self) -> usize;
    fn set_total(&self, _total: usize) {}
}

/// The plain model: the holders and the waiters.
#[derive(Debug)]
struct Plain {
    total: usize,
    shared: usize,
    alone: bool,
    queue: VecDeque<(u64, Kind)>,
    /// What has been handed to waiting tasks that have not noticed yet.
    handed: Vec<(u64, Kind)>,
    next: u64,
}

/// The model's answer to an acquire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Taken,
    Waits(u64),
}

impl Plain {
    fn new(total: usize) -> Self {
        Self {
            total,
            shared: 0,
            alone: false,
            queue: VecDeque::new(),
            handed: Vec::new(),
            next: 0,
        }
    }

    fn fits(&self, kind: Kind) -> bool {
        match kind {
            Kind::Shared => !self.alone && self.shared < self.total,
            Kind::Alone => !self.alone && self.shared == 0,
        }
    }

    fn take(&mut self, kind: Kind) {
        match kind {
            Kind::Shared => self.shared += 1,
            Kind::Alone => self.alone = true,
        }
    }

    fn try_acquire(&mut self, kind: Kind) -> bool {
        let taken = self.queue.is_empty() && self.fits(kind);
        if taken {
            self.take(kind);
        }
        taken
    }

    fn ask(&mut self, kind: Kind) -> Asked {
        if self.try_acquire(kind) {
            return Asked::Taken;
        }
        self.next += 1;
        self.queue.push_back((self.next, kind));
        Asked::Waits(self.next)
    }

    fn hand_over(&mut self) {
        while let Some(&(id, kind)) = self.queue.front().filter(|(_, kind)| self.fits(*kind)) {
            self.queue.pop_front();
            self.take(kind);
            self.handed.push((id, kind));
        }
    }

    fn release(&mut self, kind: Kind) {
        match kind {
            Kind::Shared => self.shared -= 1,
            Kind::Alone => self.alone = false,
        }
        self.hand_over();
    }

    /// A cancel that comes while it waits; one that comes later changes nothing.
    fn cancel(&mut self, id: u64) {
        self.queue.retain(|(other, _)| *other != id);
    }

    /// The task runs: returns whether it had been handed what it waited for.
    fn learn(&mut self, id: u64) -> bool {
        let before = self.handed.len();
        self.handed.retain(|(other, _)| *other != id);
        before != self.handed.len()
    }
}

struct World<'a, S: Subject> {
    subject: &'a S,
    plain: RefCell<Plain>,
    /// The acquire that each task is in: its scope, and its number in the model.
    acquiring: RefCell<Vec<Option<(CancelScope, u64)>>>,
    ended: Cell<usize>,
}

impl<'a, S: Subject> World<'a, S> {
    fn expect(&self, holds: bool, what: &str) -> Result<()> {
        match holds {
            true => Ok(()),
            false => Err(Error::msg(format!("{what}; {:?}", self.plain.borrow()))),
        }
    }

    fn compare(&self, after: &str) -> Result<()> {
        let (found, expected) = (self.subject.waiting(), self.plain.borrow().queue.len());
        self.expect(
            found == expected,
            &format!("after {after} {found} wait, and not {expected}"),
        )
    }

    fn cancel(&self, task: usize) {
        let acquiring = self.acquiring.borrow()[task].clone();
        if let Some((scope, id)) = acquiring {
            self.plain.borrow_mut().cancel(id);
            scope.cancel("by the program");
        }
    }

    async fn acquire(&self, task: usize, kind: Kind) -> Result<Option<S::Guard<'a>>> {
        let scope = CancelScope::new();
        let asked = self.plain.borrow_mut().ask(kind);
        let Asked::Waits(id) = asked else {
            return self.subject.acquire(kind).await.map(Some);
        };
        self.acquiring.borrow_mut()[task] = Some((scope.clone(), id));
        let guard = scope.enter(self.subject.acquire(kind)).await?;
        self.acquiring.borrow_mut()[task] = None;
        let handed = self.plain.borrow_mut().learn(id);
        if !handed {
            // Those behind one that was cancelled may fit now.
            self.plain.borrow_mut().hand_over();
        }
        self.expect(
            handed == guard.is_some(),
            &format!(
                "task {task} was handed it: {handed}, and has it: {}",
                guard.is_some()
            ),
        )?;
        Ok(guard)
    }

    async fn acquire_and_drop(&self, kind: Kind, yields: u64) -> Result<Option<S::Guard<'a>>> {
        let asked = self.plain.borrow_mut().ask(kind);
        let mut future: Pin<Box<dyn Future<Output = _> + '_>> =
            Box::pin(self.subject.acquire(kind));
        let polled = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
        let Asked::Waits(id) = asked else {
            self.expect(polled.is_ready(), "it was free, and not taken")?;
            return match polled {
                Poll::Ready(guard) => guard.map(Some),
                Poll::Pending => unreachable!("it was just looked at"),
            };
        };
        self.expect(polled.is_pending(), "it was not free, and taken")?;
        for _ in 0..yields {
            checkpoint().await?;
        }
        {
            let mut plain = self.plain.borrow_mut();
            plain.cancel(id);
            match plain.learn(id) {
                true => plain.release(kind),
                false => plain.hand_over(),
            }
        }
        drop(future);
        self.compare("a drop")?;
        Ok(None)
    }

    async fn task(&self, task: usize, program: &[Step]) -> Result<()> {
        let mut held: VecDeque<(Kind, S::Guard<'a>)> = VecDeque::new();
        for step in program.iter().filter(|step| step.task == task) {
            match step.what {
                What::Yield => checkpoint().await?,
                What::Sleep(seconds) => sleep(secs(seconds)).await?,
                What::Acquire(kind) => {
                    let guard = self.acquire(task, kind).await?;
                    held.extend(guard.map(|guard| (kind, guard)));
                }
                What::TryAcquire(kind) => {
                    let expected = self.plain.borrow_mut().try_acquire(kind);
                    let guard = self.subject.try_acquire(kind);
                    self.expect(expected == guard.is_some(), "what is free can be tried")?;
                    held.extend(guard.map(|guard| (kind, guard)));
                }
                What::AcquireAndDrop(kind, yields) => {
                    let guard = self.acquire_and_drop(kind, yields).await?;
                    held.extend(guard.map(|guard| (kind, guard)));
                }
                What::Release => self.release(held.pop_front()),
                What::Cancel(other) => self.cancel(other),
                What::SetTotal(total) => {
                    {
                        let mut plain = self.plain.borrow_mut();
                        plain.total = total;
                        plain.hand_over();
                    }
                    self.subject.set_total(total);
                }
            }
            self.compare(&format!("{step:?}"))?;
        }
        while let Some(last) = held.pop_front() {
            self.release(Some(last));
            self.compare("the last release")?;
        }
        self.ended.set(self.ended.get() + 1);
        Ok(())
    }

    fn release(&self, held: Option<(Kind, S::Guard<'a>)>) {
        if let Some((kind, guard)) = held {
            self.plain.borrow_mut().release(kind);
            drop(guard);
        }
    }

    /// Cancels all that still wait when nothing else can happen any more.
    async fn reap(&self) -> Result<()> {
        while self.ended.get() < TASKS {
            sleep(secs(10_000)).await?;
            (0..TASKS).for_each(|task| self.cancel(task));
        }
        Ok(())
    }
}

fn run<S: Subject>(subject: &S, total: usize, program: &[Step], seed: u64) -> Verdict {
    let world = World {
        subject,
        plain: RefCell::new(Plain::new(total)),
        acquiring: RefCell::new(vec![None; TASKS]),
        ended: Cell::new(0),
    };
    simulate(seed, async {
        open_nursery(async |nursery| {
            for task in 0..TASKS {
                nursery.start_soon(world.task(task, program));
            }
            world.reap().await
        })
        .await?;
        world.expect(subject.waiting() == 0, "somebody waits at the end")
    })
}

fn draw(random: &mut Random, kinds: &[Kind], totals: usize) -> Step {
    let kind = kinds[random.index(kinds.len())];
    let what = match random.below(16) {
        0 | 1 => What::Yield,
        2 => What::Sleep(random.below(10)),
        3..=6 => What::Acquire(kind),
        7 => What::TryAcquire(kind),
        8 | 9 => What::AcquireAndDrop(kind, random.below(4)),
        10..=12 => What::Release,
        13 if totals > 0 => What::SetTotal(random.index(totals)),
        _ => What::Cancel(random.index(TASKS)),
    };
    let task = random.index(TASKS);
    Step { task, what }
}

impl Subject for Lock<u32> {
    type Guard<'a> = LockGuard<'a, u32>;

    async fn acquire(&self, _: Kind) -> Result<LockGuard<'_, u32>> {
        let mut guard = Self::acquire(self).await?;
        *guard += 1;
        Ok(guard)
    }

    fn try_acquire(&self, _: Kind) -> Option<LockGuard<'_, u32>> {
        Self::try_acquire(self).ok()
    }

    fn waiting(&self) -> usize {
        self.statistics().tasks_waiting
    }
}

#[test]
fn f1_a_lock_does_what_its_model_does_for_every_seed() {
    check(
        "lock",
        |random| draw(random, &[Kind::Alone], 0),
        |program, seed| run(&Lock::new(0), 1, program, seed),
    );
}

impl Subject for Semaphore {
    type Guard<'a> = SemaphorePermit<'a>;

    async fn acquire(&self, _: Kind) -> Result<SemaphorePermit<'_>> {
        Self::acquire(self).await
    }

    fn try_acquire(&self, _: Kind) -> Option<SemaphorePermit<'_>> {
        Self::try_acquire(self).ok()
    }

    fn waiting(&self) -> usize {
        self.statistics().tasks_waiting
    }
}

#[test]
fn f1_a_semaphore_does_what_its_model_does_for_every_seed() {
    check(
        "semaphore",
        |random| draw(random, &[Kind::Shared], 0),
        |program, seed| run(&Semaphore::new(2), 2, program, seed),
    );
}

impl Subject for CapacityLimiter {
    type Guard<'a> = CapacityToken<'a>;

    async fn acquire(&self, _: Kind) -> Result<CapacityToken<'_>> {
        Self::acquire(self).await
    }

    fn try_acquire(&self, _: Kind) -> Option<CapacityToken<'_>> {
        Self::try_acquire(self).ok()
    }

    fn waiting(&self) -> usize {
        self.statistics().tasks_waiting
    }

    fn set_total(&self, total: usize) {
        self.set_total_tokens(total);
    }
}

#[test]
fn k4_a_limiter_does_what_its_model_does_for_every_seed() {
    check(
        "limiter",
        |random| draw(random, &[Kind::Shared], 5),
        |program, seed| run(&CapacityLimiter::new(2), 2, program, seed),
    );
}

/// Either guard of a reader-writer lock; held, and not looked at.
enum Either<'a> {
    Read(#[expect(dead_code, reason = "held")] RwLockReadGuard<'a, u32>),
    Write(#[expect(dead_code, reason = "held")] RwLockWriteGuard<'a, u32>),
}

impl Subject for RwLock<u32> {
    type Guard<'a> = Either<'a>;

    async fn acquire(&self, kind: Kind) -> Result<Either<'_>> {
        Ok(match kind {
            Kind::Shared => Either::Read(self.read().await?),
            Kind::Alone => Either::Write(self.write().await?),
        })
    }

    fn try_acquire(&self, kind: Kind) -> Option<Either<'_>> {
        match kind {
            Kind::Shared => self.try_read().ok().map(Either::Read),
            Kind::Alone => self.try_write().ok().map(Either::Write),
        }
    }

    fn waiting(&self) -> usize {
        let statistics = self.statistics();
        statistics.tasks_waiting_read + statistics.tasks_waiting_write
    }
}

#[test]
fn k7_a_reader_writer_lock_does_what_its_model_does_for_every_seed() {
    check(
        "rw_lock",
        |random| draw(random, &[Kind::Shared, Kind::Shared, Kind::Alone], 0),
        |program, seed| run(&RwLock::new(0), usize::MAX, program, seed),
    );
}
