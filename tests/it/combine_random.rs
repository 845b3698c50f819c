//! Random programs of races, joins, maps and service nurseries: whatever happens, nothing that was
//! made is lost, and no task is alive afterwards.
//!
//! Every leaf that ends well makes a token. In a calm program, one without failures and timeouts,
//! each token has been returned to the outermost caller or handed to a sink by the end. Combinators
//! that document that they drop values when cancelled, such as `try_join`, do not stand inside a
//! race there, because losers are cancelled. In a wild program anything goes, and tokens may be
//! dropped, but not forgotten.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;

use trio::lowlevel::cancel_shielded_checkpoint;
use trio::testing::MockClock;
use trio::{
    Builder, CancelScope, Error, Result, as_completed, checkpoint, join, join_all, map_concurrent,
    map_concurrent_unordered, move_on_after, open_service_nursery, race, race_all, race_ok,
    race_ok_all, sleep, sleep_forever, try_join, try_join_all, until_draining,
};

use crate::network::seeds;
use crate::support::secs;

type Boxed<'a> = Pin<Box<dyn Future<Output = Result<Vec<Token<'a>>>> + 'a>>;

#[derive(Default)]
struct World {
    state: Cell<u64>,
    /// Programs that have begun but not ended.
    alive: Cell<i64>,
    made: Cell<u64>,
    dropped: Cell<u64>,
    /// Dropped neither by the outermost caller nor by a sink.
    lost: Cell<u64>,
    calm: Cell<bool>,
}

impl World {
    fn random(&self, below: u64) -> u64 {
        let state = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(state);
        let mut hash = state;
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (hash ^ (hash >> 31)) % below
    }
}

/// What a leaf makes.
struct Token<'a> {
    world: &'a World,
    kept: Cell<bool>,
}

impl<'a> Token<'a> {
    fn new(world: &'a World) -> Self {
        world.made.set(world.made.get() + 1);
        Self {
            world,
            kept: Cell::new(false),
        }
    }
}

/// The destination of all tokens.
fn keep(tokens: Vec<Token<'_>>) {
    tokens.iter().for_each(|token| token.kept.set(true));
}

impl Drop for Token<'_> {
    fn drop(&mut self) {
        let world = self.world;
        world.dropped.set(world.dropped.get() + 1);
        if !self.kept.get() {
            world.lost.set(world.lost.get() + 1);
        }
    }
}

/// Counts a program from its first poll to its end.
struct Alive<'a>(&'a World);

impl<'a> Alive<'a> {
    fn new(world: &'a World) -> Self {
        world.alive.set(world.alive.get() + 1);
        Self(world)
    }
}

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.0.alive.set(self.0.alive.get() - 1);
    }
}

fn program(world: &World, depth: u32, racing: bool) -> Boxed<'_> {
    Box::pin(async move {
        let _alive = Alive::new(world);
        if depth == 0 {
            leaf(world).await
        } else {
            combination(world, depth - 1, racing).await
        }
    })
}

async fn leaf(world: &World) -> Result<Vec<Token<'_>>> {
    match world.random(8) {
        0 => checkpoint().await?,
        // Ends well even if it is cancelled: a late success in a race.
        1 | 2 => {
            for _ in 0..world.random(6) {
                cancel_shielded_checkpoint().await;
            }
        }
        3 if !world.calm.get() => {
            return Err(Error::msg("at random"));
        }
        4 if !world.calm.get() => {
            move_on_after(secs(world.random(5)), sleep_forever()).await?;
        }
        _ => sleep(secs(world.random(10))).await?,
    }
    Ok(vec![Token::new(world)])
}

async fn combination(world: &World, depth: u32, racing: bool) -> Result<Vec<Token<'_>>> {
    // Choices that drop values when cancelled come first, those that cancel others last.
    let choice = match world.calm.get() && racing {
        true => 5 + world.random(7),
        false => world.random(12),
    };
    let part = || program(world, depth, racing || choice >= 7);
    let count = 1 + world.random(4);
    let many = || (0..count).map(|_| part());
    match choice {
        0 => {
            let (one, two) = try_join((part(), part())).await?;
            Ok([one, two].into_iter().flatten().collect())
        }
        1 => Ok(try_join_all(many()).await?.into_iter().flatten().collect()),
        2 => {
            as_completed(many(), async |all| {
                let mut tokens = Vec::new();
                while let Some(more) = all.next().await? {
                    tokens.extend(more);
                }
                Ok(tokens)
            })
            .await
        }
        3 => {
            let limit = 1 + usize::try_from(world.random(3)).expect("small");
            let all = match world.random(2) {
                0 => map_concurrent(0..count, limit, async |_| part().await).await?,
                _ => map_concurrent_unordered(0..count, limit, async |_| part().await).await?,
            };
            Ok(all.into_iter().flatten().collect())
        }
        4 => scoped(world, part()).await,
        5 => {
            let (one, two) = join((part(), part())).await?;
            together(vec![one, two])
        }
        6 => together(join_all(many()).await?),
        7 => {
            open_service_nursery(async |helpers| {
                for _ in 0..count {
                    helpers.start_soon(async {
                        keep(part().await?);
                        sleep_forever().await
                    });
                }
                part().await
            })
            .await
        }
        8 => race((part(), part(), part()), keep).await,
        9 => race_all(many(), keep).await,
        10 => race_ok((part(), part()), keep).await,
        _ => race_ok_all(many(), keep).await,
    }
}

/// In a scope that may be cancelled or drained.
async fn scoped<'a>(world: &'a World, part: Boxed<'a>) -> Result<Vec<Token<'a>>> {
    if world.calm.get() {
        return part.await;
    }
    let scope = CancelScope::with_timeout(secs(world.random(20)));
    if world.random(2) == 0 {
        scope.drain(secs(world.random(10)), "at random");
    }
    if world.random(4) == 0 {
        scope.set_shield(true);
    }
    let inside = async {
        match world.random(2) {
            0 => part.await,
            _ => Ok(until_draining(part).await?.unwrap_or_default()),
        }
    };
    let ended = scope.enter(inside).await;
    Ok(ended?.unwrap_or_default())
}

/// All the tokens, or the first error; the tokens of the others are then accounted for.
fn together<'a>(outputs: Vec<Result<Vec<Token<'a>>>>) -> Result<Vec<Token<'a>>> {
    let mut tokens = Vec::new();
    let mut failed = None;
    for output in outputs {
        match output {
            Ok(more) => tokens.extend(more),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match failed {
        None => Ok(tokens),
        Some(error) => {
            keep(tokens);
            Err(error)
        }
    }
}

fn run_one(seed: u64, calm: bool) {
    let world = World::default();
    world.state.set(seed);
    world.calm.set(calm);
    let run = Builder::new().seed(seed).clock(MockClock::autojump());
    let result = run.run(program(&world, 4, false));
    assert_eq!(world.alive.get(), 0, "seed {seed}: somebody is alive");
    match result {
        Ok(tokens) => keep(tokens),
        Err(error) => {
            assert!(!calm, "seed {seed}: {error:?}");
            for leaf in error.leaves() {
                assert_eq!(leaf.to_string(), "at random", "seed {seed}: {error:?}");
            }
        }
    }
    if calm {
        assert_eq!(world.lost.get(), 0, "seed {seed}: lost");
    }
    assert_eq!(world.made.get(), world.dropped.get(), "seed {seed}: leaked");
}

#[test]
fn random_combinations_lose_nothing_for_every_seed() {
    for seed in seeds(400) {
        // Without failures and timeouts every single value has to be accounted for.
        run_one(seed, true);
    }
}

#[test]
fn random_combinations_with_failures_and_cancels_end_whole_for_every_seed() {
    for seed in seeds(800) {
        run_one(seed, false);
    }
}
