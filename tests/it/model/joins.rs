//! Children with handles, joined, forgotten and cancelled in any order, against what each child says
//! of its own end.
//!
//! Several tasks each have children of their own. A join is awaited, or polled a few times and then
//! dropped or forgotten, by the task itself or through a combinator with wakers of its own, under a scope
//! that may be cancelled; cancels by handle come one by one and all together. A child writes down
//! how it ended, and every join has to agree with that.
//!
//! Each program runs twice: in an order that the seed decides, and in that in which things become
//! ready. The second is what a run does that has no seed, and goes other ways inside.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use trio::lowlevel::cancel_shielded_checkpoint;
use trio::testing::Simulation;
use trio::{
    Builder, CancelScope, ChildState, Event, JoinHandle, NoValue, Nursery, Result, checkpoint,
    open_nursery,
};

use super::{Random, agree, check, verdict};

const TASKS: usize = 3;

#[derive(Clone, Debug)]
struct Step {
    task: usize,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Spawn(Work),
    /// Of the children that are left the one at this place, counted around.
    Join(usize, How),
    Cancel(usize),
    CancelAll,
    Set(usize),
    Yield,
    /// Gives the handle away.
    Drop(usize),
}

/// What a child does before it returns.
#[derive(Clone, Debug)]
enum Work {
    Yields(u64),
    /// The same, whatever is cancelled.
    ShieldedYields(u64),
    /// Until its event is set.
    Waits,
    /// Has one of its own, which it joins.
    Joins,
}

#[derive(Clone, Debug)]
enum How {
    Awaited,
    /// Not the value, but the end.
    Waited,
    /// Beside a future that is ready soon, by a combinator with wakers of its own.
    Foreign,
    /// So many polls, a turn between two of them; then dropped.
    Dropped(u64),
    Forgotten(u64),
    /// Under a scope that has been cancelled.
    Cancelled,
}

fn draw(random: &mut Random) -> Step {
    let task = random.index(TASKS);
    let child = random.index(16);
    let what = match random.below(12) {
        0..=3 => What::Spawn(match random.below(6) {
            0 | 1 => Work::Yields(random.below(4)),
            2 => Work::ShieldedYields(random.below(3)),
            3 => Work::Joins,
            _ => Work::Waits,
        }),
        4..=6 => What::Join(
            child,
            match random.below(7) {
                0 | 1 => How::Awaited,
                2 => How::Waited,
                3 => How::Foreign,
                4 => How::Dropped(1 + random.below(3)),
                5 => How::Forgotten(1 + random.below(3)),
                _ => How::Cancelled,
            },
        ),
        7 => What::Cancel(child),
        8 => What::CancelAll,
        9 => What::Set(child),
        10 => What::Yield,
        _ => What::Drop(child),
    };
    Step { task, what }
}

/// What a child and whoever has its handle know of it.
#[derive(Default)]
struct Child {
    event: Event,
    /// Whether it has returned, and if so whether with its number.
    ended: Cell<Option<bool>>,
    cancelled: Cell<bool>,
    taken: Cell<bool>,
}

async fn work(number: u64, work: Work, child: Rc<Child>) -> Result<u64> {
    let worked = match work {
        Work::Yields(count) => yields(count).await,
        Work::ShieldedYields(count) => {
            for _ in 0..count {
                cancel_shielded_checkpoint().await;
            }
            Ok(())
        }
        Work::Waits => child.event.wait().await,
        Work::Joins => joins().await,
    };
    child.ended.set(Some(worked.is_ok()));
    worked.map(|()| number)
}

async fn yields(count: u64) -> Result<()> {
    for _ in 0..count {
        checkpoint().await?;
    }
    Ok(())
}

async fn joins() -> Result<()> {
    open_nursery(async |nursery| {
        let mut inner = nursery.spawn(async { Ok(7) });
        agree(&inner.join().await?, &7, &"a join", &"a child of a child")
    })
    .await
}

type Handle<'scope> = (u64, JoinHandle<'scope, u64>, Rc<Child>);

struct Actor<'scope, 'env> {
    nursery: &'scope Nursery<'scope, 'env>,
    children: Vec<Handle<'scope>>,
    /// Of children whose handles have been given away too.
    all: Vec<Rc<Child>>,
    spawned: u64,
}

impl Actor<'_, '_> {
    async fn take(&mut self, step: &What) -> Result<()> {
        let left = self.children.len();
        match step {
            What::Spawn(kind) => {
                let child = Rc::new(Child::default());
                self.all.push(child.clone());
                self.spawned += 1;
                let number = self.spawned;
                let task = work(number, kind.clone(), child.clone());
                let handle = self.nursery.spawn(task);
                self.children.push((number, handle, child));
            }
            What::Yield => cancel_shielded_checkpoint().await,
            What::CancelAll => self.children.iter().for_each(cancel),
            _ if left == 0 => {}
            What::Join(at, how) => join(&mut self.children[at % left], how).await?,
            What::Cancel(at) => cancel(&self.children[at % left]),
            What::Set(at) => self.children[at % left].2.event.set(),
            What::Drop(at) => drop(self.children.swap_remove(at % left)),
        }
        for (_, handle, child) in &self.children {
            let known = child.ended.get();
            agree(
                &handle.is_finished(),
                &known.is_some(),
                step,
                &"whether a child has ended",
            )?;
            agree(
                &handle.state(),
                &state(child),
                step,
                &"how a child has ended",
            )?;
        }
        Ok(())
    }

    /// Lets every child end, and joins those whose handles are here.
    async fn end(&mut self) -> Result<()> {
        self.all.iter().for_each(|child| child.event.set());
        for child in &mut self.children {
            join(child, &How::Awaited).await?;
        }
        Ok(())
    }
}

fn cancel((_, handle, child): &Handle<'_>) {
    handle.cancel("by its handle");
    child.cancelled.set(true);
}

fn state(child: &Child) -> ChildState {
    match child.ended.get() {
        None => ChildState::Running,
        Some(true) => ChildState::Finished,
        Some(false) => ChildState::Cancelled,
    }
}

async fn join((number, handle, child): &mut Handle<'_>, how: &How) -> Result<()> {
    let waits = child.ended.get().is_none() && !child.cancelled.get();
    match how {
        // Nobody is going to end it.
        How::Awaited | How::Waited | How::Foreign if waits => child.event.set(),
        _ => {}
    }
    let joined = match how {
        How::Awaited => handle.join().await,
        How::Foreign => among_others(handle.join()).await,
        How::Waited => {
            let found = handle.wait().await?;
            return agree(&found, &state(child), how, &"the end of a child");
        }
        How::Dropped(polls) => {
            let mut join = handle.join();
            match poll_some(&mut join, *polls).await {
                Some(joined) => joined,
                None => return Ok(()),
            }
        }
        How::Forgotten(polls) => {
            let mut join = handle.join();
            match poll_some(&mut join, *polls).await {
                Some(joined) => joined,
                None => {
                    forget(join);
                    return Ok(());
                }
            }
        }
        How::Cancelled => {
            let scope = CancelScope::new();
            scope.cancel("before");
            let joined = scope.enter(handle.join()).await?;
            return agree(&joined, &None, how, &"a join under a cancelled scope");
        }
    };
    let expected = match (child.ended.get(), child.taken.replace(true)) {
        (None, _) => Err("no end".to_owned()),
        (Some(true), false) => Ok(*number),
        (Some(true), true) => Err(format!("{:?}", NoValue::Taken)),
        (Some(false), _) => Err(format!("{:?}", NoValue::Cancelled)),
    };
    let found = joined.map_err(|error| match error.downcast_ref::<NoValue>() {
        Some(none) => format!("{none:?}"),
        None => format!("{error:?}"),
    });
    agree(&found, &expected, how, &"the value of a child")?;
    let ended_alone = child.ended.get() == Some(false) && !child.cancelled.get();
    agree(
        &ended_alone,
        &false,
        how,
        &"a child was cancelled, and by nobody",
    )
}

/// The output of `future`, by a combinator that polls with wakers of its own.
async fn among_others<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let output = RefCell::new(None);
    let first = async { *output.borrow_mut() = Some(future.await) };
    let second = cancel_shielded_checkpoint();
    let mut both = FuturesUnordered::new();
    both.push(futures::future::Either::Left(first));
    both.push(futures::future::Either::Right(second));
    while both.next().await.is_some() {}
    drop(both);
    output.into_inner().expect("both have ended")
}

async fn poll_some<T>(
    future: &mut (impl Future<Output = Result<T>> + Unpin),
    polls: u64,
) -> Option<Result<T>> {
    for _ in 0..polls {
        let polled = poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context))).await;
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        cancel_shielded_checkpoint().await;
    }
    None
}

#[expect(clippy::mem_forget, reason = "what is forgotten is the subject")]
fn forget<T>(future: T) {
    std::mem::forget(future);
}

async fn play(program: &[Step]) -> Result<()> {
    open_nursery(async |nursery| {
        for task in 0..TASKS {
            let own = program.iter().filter(move |step| step.task == task);
            let acts = async move {
                let mut actor = Actor {
                    nursery,
                    children: Vec::new(),
                    all: Vec::new(),
                    spawned: 0,
                };
                let mut failed = Ok(());
                for step in own {
                    failed = failed.and(actor.take(&step.what).await);
                }
                failed.and(actor.end().await)
            };
            nursery.start_soon(acts);
        }
        Ok(())
    })
    .await
}

#[test]
fn j1_joins_and_cancels_agree_with_the_children_for_every_seed() {
    check("joins", draw, |program, seed| {
        let simulation = || Builder::new().simulation(Simulation::new(seed));
        verdict(simulation().seed(seed), play(program))?;
        verdict(simulation(), play(program))
    });
}
