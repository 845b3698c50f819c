//! Cancels, shields and deadlines in a tree of scopes, against a model that recurses.
//!
//! The tree follows from the seed, and the program is what is done to it. In each scope is a
//! nursery, with a scope of its own. In both, a task checks in each turn whether it is cancelled,
//! and under the nursery another task waits. After each step they are compared with the model: what
//! is visible, which cancellation it is, and that each wait ended in the turn in which the first
//! one reached it.
//!
//! The tasks that check never rest, so time has to be moved by hand: there is a clock for that on
//! top of the simulation.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;

use trio::lowlevel::{cancel_shielded_checkpoint, checkpoint_if_cancelled};
use trio::testing::MockClock;
use trio::{
    CancelScope, CancelSource, Cancelled, Nursery, Result, Time, current_time, open_nursery,
    sleep_forever,
};

use super::{Random, agree, check, simulate_at};
use crate::support::secs;

/// The most scopes in a tree.
const SCOPES: usize = 9;

#[derive(Clone, Debug)]
struct Step {
    /// The scope that the step concerns, modulo the size of the tree, which may be smaller.
    scope: usize,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Shield(bool),
    /// A deadline, this many seconds from now.
    Deadline(u64),
    NoDeadline,
    Cancel,
    /// This many seconds pass.
    Jump(u64),
}

fn draw(random: &mut Random) -> Step {
    let scope = random.index(SCOPES);
    let what = match random.below(6) {
        0 | 1 => What::Shield(random.below(2) == 0),
        2 => What::Deadline(1 + random.below(6)),
        3 => What::NoDeadline,
        4 => What::Jump(1 + random.below(3)),
        _ => What::Cancel,
    };
    Step { scope, what }
}

/// The model's view of a scope, or of the nursery in it, which is a scope of its own that nobody
/// cancels: scope `n` is number `2 * n` here, and its nursery the next. Cancellations are
/// identified by the step that requested them.
#[derive(Clone, Debug, Default)]
struct Model {
    parent: Option<usize>,
    shield: bool,
    own: Option<u64>,
    /// What is delivered: `None` if nothing is visible.
    visible: Option<u64>,
    deadline: Option<Time>,
    /// The cancellation with which the wait under the scope ended.
    ended: Option<u64>,
}

fn refresh(scopes: &mut [Model], at: usize) {
    let Model {
        parent,
        shield,
        own,
        visible,
        ..
    } = scopes[at].clone();
    let around = parent.filter(|_| !shield);
    let around = around.and_then(|parent| scopes[parent].visible);
    let now = match (visible, own, around) {
        // The first to arrive stays, as long as it is justified.
        (Some(first), Some(_), Some(_)) => Some(first),
        _ => own.or(around),
    };
    scopes[at].visible = now;
    if now.is_some() && scopes[at].ended.is_none() {
        scopes[at].ended = now;
    }
    if now.is_some() != visible.is_some() {
        for child in 0..scopes.len() {
            if scopes[child].parent == Some(at) {
                refresh(scopes, child);
            }
        }
    }
}

fn cancel(scopes: &mut [Model], at: usize, step: u64) {
    if scopes[at].own.is_none() {
        scopes[at].own = Some(step);
        refresh(scopes, at);
    }
}

/// The tree in the library.
struct World {
    parents: Vec<Option<usize>>,
    scopes: Vec<CancelScope>,
    /// What was last seen in each scope, and after that in its nursery.
    seen: RefCell<Vec<Option<Cancelled>>>,
    ended: RefCell<Vec<Option<Cancelled>>>,
    over: Cell<bool>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let count = 1 + random.index(SCOPES);
        let parents = (0..count).map(|at| (at > 0).then(|| random.index(at)));
        Self {
            parents: parents.collect(),
            scopes: (0..count).map(|_| CancelScope::new()).collect(),
            seen: RefCell::new(vec![None; 2 * count]),
            ended: RefCell::new(vec![None; count]),
            over: Cell::new(false),
        }
    }

    /// Enters a scope that contains two tasks, the scopes below, and one more task beside their
    /// nursery.
    fn inside(&self, at: usize) -> Pin<Box<dyn Future<Output = Result<()>> + '_>> {
        Box::pin(async move {
            let inside = open_nursery(async |nursery| {
                nursery.start_soon(self.wait(at));
                nursery.start_soon(self.look(2 * at + 1));
                self.start_below(nursery, at);
                Ok(())
            });
            let both = async { futures::join!(inside, self.look(2 * at)).0 };
            self.scopes[at].enter(both).await?;
            Ok(())
        })
    }

    fn start_below<'scope>(&'scope self, nursery: &'scope Nursery<'scope, '_>, at: usize) {
        for child in 0..self.parents.len() {
            if self.parents[child] == Some(at) {
                nursery.start_soon(self.inside(child));
            }
        }
    }

    async fn wait(&self, at: usize) -> Result<()> {
        let error = sleep_forever().await.expect_err("only a cancel ends it");
        let cancelled = error.as_cancelled().cloned();
        self.ended.borrow_mut()[at] = cancelled;
        Ok(())
    }

    async fn look(&self, at: usize) -> Result<()> {
        while !self.over.get() {
            let seen = checkpoint_if_cancelled().await.err();
            let seen = seen.map(|error| error.as_cancelled().expect("no other error").clone());
            self.seen.borrow_mut()[at] = seen;
            cancel_shielded_checkpoint().await;
        }
        Ok(())
    }
}

/// Stands for a step if a deadline cancelled.
const DEADLINE: u64 = u64::MAX;

/// The step that requested a cancellation.
fn step_of(cancelled: Option<&Cancelled>) -> Option<u64> {
    let cancelled = cancelled?;
    match cancelled.source() {
        CancelSource::Deadline => Some(DEADLINE),
        _ => Some(cancelled.reason()?.parse().expect("the number of a step")),
    }
}

/// Ends all tasks, even if the model and the library disagree.
struct Over<'a>(&'a World);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.set(true);
        for scope in &self.0.scopes {
            scope.cancel("over");
        }
    }
}

/// The deadlines that are due by now, the earliest first.
fn due(model: &[Model]) -> Vec<usize> {
    let now = current_time();
    let mut due: Vec<(Time, usize)> = (model.iter().enumerate())
        .filter(|(_, scope)| scope.own.is_none())
        .filter_map(|(at, scope)| Some((scope.deadline?, at)))
        .filter(|(deadline, _)| *deadline <= now)
        .collect();
    due.sort_unstable();
    due.into_iter().map(|(_, at)| at).collect()
}

async fn play(world: &World, clock: &MockClock, program: &[Step]) -> Result<()> {
    let _over = Over(world);
    let mut model: Vec<Model> = Vec::new();
    for (at, parent) in world.parents.iter().enumerate() {
        for parent in [parent.map(|parent| 2 * parent + 1), Some(2 * at)] {
            let scope = Model {
                parent,
                ..Model::default()
            };
            model.push(scope);
        }
    }
    for (number, step) in program.iter().enumerate() {
        let number = number as u64;
        let at = step.scope % world.scopes.len();
        let (scope, at) = (&world.scopes[at], 2 * at);
        match step.what {
            What::Shield(shield) => {
                scope.set_shield(shield);
                model[at].shield = shield;
                refresh(&mut model, at);
            }
            What::Deadline(seconds) => {
                let deadline = current_time() + secs(seconds);
                scope.set_deadline(deadline);
                model[at].deadline = Some(deadline);
            }
            What::NoDeadline => {
                scope.set_deadline(Time::NEVER);
                model[at].deadline = None;
            }
            What::Jump(seconds) => clock.jump(secs(seconds)),
            What::Cancel => {
                scope.cancel(number.to_string());
                cancel(&mut model, at, number);
            }
        }
        // One turn for the deadlines, one for everyone to check, and one to spare.
        for _ in 0..3 {
            cancel_shielded_checkpoint().await;
        }
        for at in due(&model) {
            cancel(&mut model, at, DEADLINE);
        }
        for (at, scope) in world.scopes.iter().enumerate() {
            let (around, inside) = (&model[2 * at], &model[2 * at + 1]);
            let seen =
                [2 * at, 2 * at + 1].map(|place| step_of(world.seen.borrow()[place].as_ref()));
            let ended = step_of(world.ended.borrow()[at].as_ref());
            let own = step_of(scope.cancellation().as_ref());
            let found = (seen, ended, own, scope.cancel_called());
            let called = around.own.is_some();
            let visible = [around.visible, inside.visible];
            let expected = (visible, inside.ended, around.own, called);
            agree(&found, &expected, &(number, step, at), &model)?;
        }
    }
    Ok(())
}

#[test]
fn l1_a_tree_of_scopes_does_what_its_model_does_for_every_seed() {
    check("scopes", draw, |program, seed| {
        let world = World::new(seed);
        let clock = MockClock::new();
        let main = open_nursery(async |nursery| {
            nursery.start_soon(world.inside(0));
            // Until every task is in its place, however deep.
            for _ in 0..4 * world.scopes.len() {
                cancel_shielded_checkpoint().await;
            }
            play(&world, &clock, program).await
        });
        simulate_at(&clock, seed, main)
    });
}
