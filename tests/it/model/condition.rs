//! A condition and its lock against a plain model: who sleeps, who stands in line, who holds.
//!
//! What the model checks: a notification moves the oldest sleepers to the end of the line and is
//! not undone by a cancel; a wait that is cancelled has the lock again when it returns; a wait that
//! is dropped passes a notification on. One thing happens in the library without a call: a wait
//! that was cancelled rejoins the line when its future is polled. So the wait is wrapped, and the
//! wrapper tells the model.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use trio::sync::{Condition, Lock, LockGuard};
use trio::{CancelScope, Error, Result, checkpoint, open_nursery, sleep};

use super::{Random, Verdict, check, simulate};
use crate::support::secs;

const TASKS: usize = 5;

#[derive(Clone, Debug)]
struct Step {
    task: usize,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Yield,
    Sleep(u64),
    /// Takes the lock, waits, yields this often, and releases it.
    Wait(u64),
    /// Takes the lock, begins to wait, yields this often, and drops the wait.
    WaitAndDrop(u64),
    /// Takes the lock, notifies this many, yields this often, and releases it.
    Notify(usize, u64),
    Cancel(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    InLine,
    Holds,
    Sleeps,
    /// In line again, or holding the lock without knowing it.
    Notified,
    /// Was cancelled in line, or while asleep, and has not been polled since.
    CutShort,
    /// Was cancelled while asleep, and has to take the lock again.
    ComesBack,
}

#[derive(Debug)]
struct Plain {
    phases: [Phase; TASKS],
    holder: Option<usize>,
    line: VecDeque<usize>,
    sleepers: VecDeque<usize>,
}

impl Plain {
    fn stand_in_line(&mut self, task: usize) {
        match self.holder {
            None => self.holder = Some(task),
            Some(_) => self.line.push_back(task),
        }
    }

    fn release(&mut self) {
        self.holder = self.line.pop_front();
    }

    fn notify(&mut self, count: usize) {
        for _ in 0..count.min(self.sleepers.len()) {
            let next = self.sleepers.pop_front();
            self.line.extend(next);
            if let Some(task) = next {
                self.phases[task] = Phase::Notified;
            }
        }
    }

    fn cancel(&mut self, task: usize) {
        match self.phases[task] {
            Phase::InLine if self.holder != Some(task) => {
                self.line.retain(|other| *other != task);
                self.phases[task] = Phase::CutShort;
            }
            Phase::Sleeps => {
                self.sleepers.retain(|other| *other != task);
                self.phases[task] = Phase::CutShort;
            }
            _ => {}
        }
    }

    /// The future of a wait is about to be polled again.
    fn poll_wait(&mut self, task: usize) {
        if self.phases[task] == Phase::CutShort {
            self.phases[task] = Phase::ComesBack;
            self.stand_in_line(task);
        }
    }

    fn drop_wait(&mut self, task: usize) {
        let phase = std::mem::replace(&mut self.phases[task], Phase::Idle);
        self.sleepers.retain(|other| *other != task);
        if phase == Phase::Notified {
            self.notify(1);
            self.line.retain(|other| *other != task);
            if self.holder == Some(task) {
                self.release();
            }
        }
    }
}

struct World {
    lock: Lock<()>,
    condition: Condition,
    plain: RefCell<Plain>,
    scopes: RefCell<Vec<Option<CancelScope>>>,
    ended: Cell<usize>,
}

impl World {
    fn expect(&self, holds: bool, what: &str) -> Result<()> {
        match holds {
            true => Ok(()),
            false => Err(Error::msg(format!("{what}; {:?}", self.plain.borrow()))),
        }
    }

    fn compare(&self, after: &str) -> Result<()> {
        let plain = self.plain.borrow();
        let statistics = self.lock.statistics();
        let line = (statistics.tasks_waiting, plain.line.len());
        self.expect(
            line.0 == line.1,
            &format!("after {after} in line: {line:?}"),
        )?;
        let held = (statistics.locked, plain.holder.is_some());
        self.expect(held.0 == held.1, &format!("after {after} held: {held:?}"))
    }

    fn set(&self, task: usize, phase: Phase) {
        self.plain.borrow_mut().phases[task] = phase;
    }

    fn phase(&self, task: usize) -> Phase {
        self.plain.borrow().phases[task]
    }

    fn holds(&self, task: usize) -> Result<()> {
        let holder = self.plain.borrow().holder;
        self.expect(holder == Some(task), &format!("task {task} has the lock"))
    }

    fn cancel(&self, task: usize) {
        let scope = self.scopes.borrow()[task].clone();
        if let Some(scope) = scope {
            self.plain.borrow_mut().cancel(task);
            scope.cancel("by the program");
        }
    }

    async fn acquire(&self, task: usize) -> Result<LockGuard<'_, ()>> {
        self.plain.borrow_mut().stand_in_line(task);
        self.set(task, Phase::InLine);
        let result = self.lock.acquire().await;
        match &result {
            Ok(_) => {
                self.holds(task)?;
                self.set(task, Phase::Holds);
            }
            Err(_) => {
                let cut_short = self.phase(task) == Phase::CutShort;
                self.expect(cut_short, "an acquire fails when it is cancelled")?;
                self.set(task, Phase::Idle);
            }
        }
        result
    }

    fn release(&self, task: usize, guard: LockGuard<'_, ()>) {
        self.set(task, Phase::Idle);
        self.plain.borrow_mut().release();
        drop(guard);
    }

    /// Waits, and tells the model of each poll.
    async fn wait(&self, task: usize, guard: &mut LockGuard<'_, ()>) -> Result<()> {
        let mut wait = self.condition.wait(guard);
        let mut begun = false;
        let result = poll_fn(|context| {
            let mut plain = self.plain.borrow_mut();
            if begun {
                plain.poll_wait(task);
            } else if !self.is_cancelled(task) {
                plain.phases[task] = Phase::Sleeps;
                plain.sleepers.push_back(task);
                plain.release();
            }
            begun = true;
            drop(plain);
            Pin::new(&mut wait).poll(context)
        })
        .await;
        self.holds(task)?;
        let expected = self.phase(task) == Phase::Notified;
        self.expect(
            result.is_ok() == expected,
            "a wait succeeds when it was notified",
        )?;
        self.set(task, Phase::Holds);
        result
    }

    fn is_cancelled(&self, task: usize) -> bool {
        let scopes = self.scopes.borrow();
        scopes[task]
            .as_ref()
            .is_some_and(CancelScope::cancel_called)
    }

    async fn yields(&self, count: u64) -> Result<()> {
        for _ in 0..count {
            checkpoint().await?;
        }
        Ok(())
    }

    async fn hold(&self, task: usize, what: &What) -> Result<()> {
        let mut guard = self.acquire(task).await?;
        let result = match what {
            What::Wait(yields) => match self.wait(task, &mut guard).await {
                Ok(()) => self.yields(*yields).await,
                Err(error) => Err(error),
            },
            What::Notify(count, yields) => {
                self.condition.notify(&guard, *count);
                self.plain.borrow_mut().notify(*count);
                self.yields(*yields).await
            }
            What::WaitAndDrop(yields) if !self.is_cancelled(task) => {
                let mut wait = self.condition.wait(&mut guard);
                {
                    let mut plain = self.plain.borrow_mut();
                    plain.phases[task] = Phase::Sleeps;
                    plain.sleepers.push_back(task);
                    plain.release();
                }
                let polled =
                    poll_fn(|context| Poll::Ready(Pin::new(&mut wait).poll(context))).await;
                self.expect(polled.is_pending(), "a wait waits")?;
                let result = self.yields(*yields).await;
                self.plain.borrow_mut().drop_wait(task);
                drop(wait);
                return result;
            }
            _ => Ok(()),
        };
        self.release(task, guard);
        result
    }

    async fn task(&self, task: usize, program: &[Step]) -> Result<()> {
        for step in program.iter().filter(|step| step.task == task) {
            match &step.what {
                What::Yield => checkpoint().await?,
                What::Sleep(seconds) => sleep(secs(*seconds)).await?,
                What::Cancel(other) => self.cancel(*other),
                what => {
                    let scope = CancelScope::new();
                    self.scopes.borrow_mut()[task] = Some(scope.clone());
                    let _: Option<()> = scope.enter(self.hold(task, what)).await?;
                    self.scopes.borrow_mut()[task] = None;
                    self.set(task, Phase::Idle);
                }
            }
            self.compare(&format!("{step:?}"))?;
        }
        self.ended.set(self.ended.get() + 1);
        Ok(())
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

fn run(program: &[Step], seed: u64) -> Verdict {
    let world = World {
        lock: Lock::new(()),
        condition: Condition::new(),
        plain: RefCell::new(Plain {
            phases: [Phase::Idle; TASKS],
            holder: None,
            line: VecDeque::new(),
            sleepers: VecDeque::new(),
        }),
        scopes: RefCell::new(vec![None; TASKS]),
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
        world.expect(!world.lock.is_locked(), "the lock is free at the end")
    })
}

fn draw(random: &mut Random) -> Step {
    let what = match random.below(12) {
        0 | 1 => What::Yield,
        2 => What::Sleep(random.below(10)),
        3..=5 => What::Wait(random.below(3)),
        6 | 7 => What::WaitAndDrop(random.below(4)),
        8 | 9 => What::Notify(random.index(4), random.below(3)),
        _ => What::Cancel(random.index(TASKS)),
    };
    let task = random.index(TASKS);
    Step { task, what }
}

#[test]
fn k2_a_condition_does_what_its_model_does_for_every_seed() {
    check("condition", draw, run);
}
