//! Random trees of tasks, scopes and cancels: whatever happens, everything ends, and in its place.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;

use trio::testing::MockClock;
use trio::{
    Builder, CancelScope, ClosedResource, Error, NoValue, Nursery, Result, Usage, checkpoint,
    current_time, fail_after, move_on_after, open_nursery, sleep, sleep_forever,
};

use crate::network::seeds;
use crate::support::secs;

type Boxed<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// The material of a tree, and the rules that it must keep.
#[derive(Default)]
struct World {
    state: Cell<u64>,
    /// How many tasks may still be made.
    left: Cell<u32>,
    begun: Cell<u32>,
    ended: Cell<u32>,
    /// Handles to scopes, for any task to cancel.
    scopes: RefCell<Vec<CancelScope>>,
}

impl World {
    fn random(&self, below: u64) -> u64 {
        // An additive generator with a hash, as in the runtime, so that no crate is needed for it.
        let state = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(state);
        let mut hash = state;
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (hash ^ (hash >> 31)) % below
    }

    fn scope(&self) -> CancelScope {
        let scope = match self.random(4) {
            0 => CancelScope::with_timeout(secs(self.random(20))),
            1 => CancelScope::new().shielded(),
            _ => CancelScope::new(),
        };
        self.scopes.borrow_mut().push(scope.clone());
        scope
    }

    fn meddle(&self) {
        let scopes = self.scopes.borrow();
        if scopes.is_empty() {
            return;
        }
        let at = usize::try_from(self.random(scopes.len() as u64)).expect("below a length");
        let scope = scopes[at].clone();
        drop(scopes);
        match self.random(5) {
            0 => scope.set_shield(!scope.shield()),
            1 => scope.set_timeout(secs(self.random(5))),
            2 => scope.set_deadline(current_time()),
            3 => assert!(!scope.cancelled_caught() || scope.cancel_called()),
            _ => scope.cancel("at random"),
        }
    }
}

/// Counts a task from its first poll to its end or its drop.
struct Living<'a>(&'a World);

impl<'a> Living<'a> {
    fn new(world: &'a World) -> Self {
        world.begun.set(world.begun.get() + 1);
        Self(world)
    }
}

impl Drop for Living<'_> {
    fn drop(&mut self) {
        self.0.ended.set(self.0.ended.get() + 1);
    }
}

/// Counts what lives in one nursery, from before its start to its drop.
struct Inside<'a>(&'a Cell<u32>);

impl<'a> Inside<'a> {
    fn new(count: &'a Cell<u32>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

fn task(world: &World) -> Boxed<'_> {
    Box::pin(async move {
        let _living = Living::new(world);
        for _ in 0..world.random(4) {
            act(world).await?;
        }
        Ok(())
    })
}

/// One thing that a task may do. Nothing here fails, except by a cancel or as
/// `Error::msg("at random")`.
fn act(world: &World) -> Boxed<'_> {
    Box::pin(async move {
        match world.random(12) {
            0 | 1 => checkpoint().await,
            2 => sleep(secs(world.random(10))).await,
            3 => {
                world.meddle();
                Ok(())
            }
            4 => world.scope().enter(act(world)).await.map(drop),
            5 => move_on_after(secs(world.random(6)), sleep_forever())
                .await
                .map(drop),
            6 => match fail_after(secs(world.random(6)), act(world)).await {
                Err(error) if error.is::<trio::TooSlow>() => Ok(()),
                result => result,
            },
            7 if world.random(4) == 0 => Err(Error::msg("at random")),
            8 => together(world).await,
            _ => nursery(world).await,
        }
    })
}

/// Something in a foreign combinator, one half of which may be dropped half-way.
async fn together(world: &World) -> Result<()> {
    if world.random(2) == 0 {
        let (one, two) = futures::join!(act(world), act(world));
        return one.and(two);
    }
    let mut many: Vec<Boxed<'_>> = (0..3).map(|_| task(world)).collect();
    many.push(Box::pin(sleep(secs(world.random(5)))));
    let (first, _, rest) = futures::future::select_all(many).await;
    let rest = rest
        .into_iter()
        .collect::<futures::stream::FuturesUnordered<_>>();
    if world.random(2) == 0 {
        drop(rest);
    } else {
        let results: Vec<Result<()>> = futures::StreamExt::collect(rest).await;
        results.into_iter().collect::<Result<()>>()?;
    }
    first
}

async fn nursery(world: &World) -> Result<()> {
    let inside = Cell::new(0);
    let result = open_nursery(async |nursery| {
        world.scopes.borrow_mut().push(nursery.cancel_scope());
        for _ in 0..world.random(5) {
            if world.left.get() > 0 {
                world.left.set(world.left.get() - 1);
                spawn(world, nursery, &inside).await?;
            }
        }
        act(world).await
    })
    .await;
    assert_eq!(inside.get(), 0, "a child has outlived its nursery");
    match result {
        Err(error) if world.random(2) == 0 => {
            error.subgroup(Error::is_cancelled).map_or(Ok(()), Err)
        }
        result => result,
    }
}

async fn spawn<'scope, 'env>(
    world: &'env World,
    nursery: &'scope Nursery<'scope, 'env>,
    inside: &'env Cell<u32>,
) -> Result<()> {
    let guard = Inside::new(inside);
    let child = async move {
        let _guard = guard;
        task(world).await
    };
    match world.random(4) {
        0 => {
            let mut handle = nursery.spawn(child);
            if world.random(2) == 0 {
                handle.join().await?;
            }
            Ok(())
        }
        1 => {
            let start = nursery.start(async move |status| {
                act(world).await?;
                status.started(())?;
                child.await
            });
            start.await
        }
        _ => {
            nursery.start_soon(child);
            Ok(())
        }
    }
}

/// Prints the seed if a panic passes, so that any failure in here can be reproduced.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("found again by TRIO_SIM_SEEDS={}", self.0);
        }
    }
}

#[test]
fn a_random_tree_ends_whole_for_every_seed() {
    for seed in seeds(1000) {
        let _told = Told(seed);
        let world = World::default();
        world.state.set(seed);
        world.left.set(60);
        let run = Builder::new().seed(seed).clock(MockClock::autojump());
        let result = run.run(async {
            let _living = Living::new(&world);
            // The limit is far beyond what the tasks can sleep in all.
            fail_after(secs(1_000_000), async {
                let outermost = CancelScope::new();
                outermost.enter(nursery(&world)).await?;
                Ok(())
            })
            .await
        });
        assert_eq!(world.begun.get(), world.ended.get());
        if let Err(error) = result {
            for leaf in error.leaves() {
                // A shield that is raised at the wrong moment can let a private nursery catch what
                // kept a child from reporting or from having a value.
                let expected = leaf.is::<Usage>()
                    || leaf.is::<NoValue>()
                    || leaf.is::<ClosedResource>()
                    || leaf.to_string() == "at random";
                assert!(expected, "{error:?}");
            }
        }
    }
}
