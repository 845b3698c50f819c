//! Random cancels, shields and deadlines in a tree of scopes, against a model that recurses.
//!
//! Under each scope a task waits, and another asks in each turn whether it is cancelled. After each
//! step the two are compared with the model, for all scopes: what is visible, of which cancellation
//! it tells, and that each wait ended in the turn in which the first reached it.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;

use trio::lowlevel::{cancel_shielded_checkpoint, checkpoint_if_cancelled};
use trio::testing::MockClock;
use trio::{
    Builder, CancelScope, CancelSource, Cancelled, Nursery, Result, Time, current_time,
    open_nursery, sleep_forever,
};

use crate::support::secs;

const SCOPES: u64 = 9;
const STEPS: u64 = 16;

/// What a scope is in the model, or the nursery in it, which is a scope of its own that nobody
/// cancels: scope `n` is number `2 * n` here, and its nursery the next. Cancellations are known by
/// the step in which they were asked for.
#[derive(Clone, Debug, Default)]
struct Model {
    parent: Option<usize>,
    shield: bool,
    own: Option<u64>,
    /// What is delivered: `None` if nothing is visible.
    visible: Option<u64>,
    deadline: Option<Time>,
    /// What the wait under the scope ended with.
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
        // The first to arrive stays, as long as it has a reason to.
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

/// The tree as the library has it.
struct World {
    random: Cell<u64>,
    parents: Vec<Option<usize>>,
    scopes: Vec<CancelScope>,
    /// What was seen last under each scope.
    seen: RefCell<Vec<Option<Cancelled>>>,
    ended: RefCell<Vec<Option<Cancelled>>>,
    over: Cell<bool>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            random: Cell::new(seed),
            parents: Vec::new(),
            scopes: Vec::new(),
            seen: RefCell::default(),
            ended: RefCell::default(),
            over: Cell::new(false),
        };
        for at in 0..=world.below(SCOPES) {
            let parent = (at > 0).then(|| world.index(at));
            world.parents.push(parent);
            world.scopes.push(CancelScope::new());
        }
        world.seen.get_mut().resize(world.scopes.len(), None);
        world.ended.get_mut().resize(world.scopes.len(), None);
        world
    }

    fn below(&self, limit: u64) -> u64 {
        // SplitMix64, so that no crate is needed for it.
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mut hash = state;
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (hash ^ (hash >> 31)) % limit
    }

    fn index(&self, limit: u64) -> usize {
        usize::try_from(self.below(limit)).expect("below a length")
    }

    /// Enters a scope, in which two tasks are and the scopes below.
    fn inside(&self, at: usize) -> Pin<Box<dyn Future<Output = Result<()>> + '_>> {
        Box::pin(async move {
            let inside = open_nursery(async |nursery| {
                nursery.start_soon(self.wait(at));
                nursery.start_soon(self.look(at));
                self.start_below(nursery, at);
                Ok(())
            });
            self.scopes[at].enter(inside).await?;
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

/// By which step a cancellation was asked for.
fn step_of(cancelled: Option<&Cancelled>) -> Option<u64> {
    let cancelled = cancelled?;
    match cancelled.source() {
        // Told from the others by the place that it takes.
        CancelSource::Deadline => Some(u64::MAX),
        _ => Some(cancelled.reason()?.parse().expect("the number of a step")),
    }
}

/// Ends those who look, also if the model and the library disagree.
struct Over<'a>(&'a World);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.set(true);
    }
}

async fn play(world: &World, clock: &MockClock) -> Result<()> {
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
    for step in 0..STEPS {
        let at = world.index(world.scopes.len() as u64);
        let scope = &world.scopes[at];
        let at = 2 * at;
        match world.below(6) {
            0 | 1 => {
                let shield = world.below(2) == 0;
                scope.set_shield(shield);
                model[at].shield = shield;
                refresh(&mut model, at);
            }
            2 => {
                let deadline = current_time() + secs(1 + world.below(6));
                scope.set_deadline(deadline);
                model[at].deadline = Some(deadline);
            }
            3 => {
                scope.set_deadline(Time::NEVER);
                model[at].deadline = None;
            }
            4 => clock.jump(secs(1 + world.below(3))),
            _ => {
                scope.cancel(step.to_string());
                cancel(&mut model, at, step);
            }
        }
        // One turn for the deadlines, and two for everyone to look.
        for _ in 0..4 {
            cancel_shielded_checkpoint().await;
        }
        let mut due: Vec<(Time, usize)> = Vec::new();
        for (at, scope) in model.iter_mut().enumerate() {
            let deadline = scope
                .deadline
                .filter(|deadline| *deadline <= current_time());
            if let (Some(deadline), None) = (deadline, scope.own) {
                due.push((deadline, at));
            }
        }
        due.sort_unstable();
        for (_, at) in due {
            cancel(&mut model, at, u64::MAX);
        }
        for at in 0..world.scopes.len() {
            let (scope, inside) = (&model[2 * at], &model[2 * at + 1]);
            let seen = step_of(world.seen.borrow()[at].as_ref());
            let ended = step_of(world.ended.borrow()[at].as_ref());
            let own = step_of(world.scopes[at].cancellation().as_ref());
            assert_eq!(seen, inside.visible, "step {step}, scope {at}: visible");
            assert_eq!(ended, inside.ended, "step {step}, scope {at}: ended");
            assert_eq!(own, scope.own, "step {step}, scope {at}: own");
            let called = world.scopes[at].cancel_called();
            assert_eq!(called, own.is_some(), "step {step}, scope {at}: called");
        }
    }
    for scope in &world.scopes {
        scope.cancel("over");
    }
    Ok(())
}

#[test]
fn l1_a_random_tree_of_scopes_does_as_a_plain_model_for_every_seed() {
    for seed in 0..1000 {
        let world = World::new(seed);
        let clock = MockClock::new();
        let builder = Builder::new().seed(seed).clock(clock.clone());
        let result = builder.run(open_nursery(async |nursery| {
            nursery.start_soon(world.inside(0));
            // Everyone is where they belong, however deep.
            for _ in 0..4 * world.scopes.len() {
                cancel_shielded_checkpoint().await;
            }
            play(&world, &clock).await
        }));
        result.unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
    }
}
