//! Random sleeps and deadlines, one in the other and many at once, against arithmetic.
//!
//! Each task draws what it does and knows by adding up when each step must end: in virtual time that
//! is exact. Many timers are set and taken back on the way, in any order.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use trio::testing::MockClock;
use trio::{
    Builder, CancelScope, Result, TooSlow, checkpoint, current_time, fail_after, move_on_at,
    open_nursery, sleep, sleep_forever, sleep_until,
};

/// SplitMix64, so that no crate is needed for it.
struct Random(Cell<u64>);

impl Random {
    fn below(&self, limit: u64) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mut hash = state;
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (hash ^ (hash >> 31)) % limit
    }

    /// An even number of milliseconds, above zero.
    fn even(&self) -> Duration {
        Duration::from_millis(2 + 2 * self.below(200))
    }

    /// An odd one: never the same moment as an even one after the same time.
    fn odd(&self) -> Duration {
        Duration::from_millis(1 + 2 * self.below(200))
    }
}

/// Something that takes a known time, and is cut short by nothing inside it.
enum Timed {
    Sleep(Duration),
    /// Ends after the shorter of the two.
    Limited(Duration, Box<Self>),
    /// The limit is moved to another time after so long, by another task.
    Moved {
        first: Duration,
        when: Duration,
        to: Duration,
    },
}

impl Timed {
    fn draw(random: &Random, depth: u32) -> Self {
        match random.below(4) {
            0 if depth > 0 => Self::Limited(random.odd(), Box::new(Self::draw(random, depth - 1))),
            1 => Self::Moved {
                first: random.odd(),
                when: random.even(),
                to: random.odd(),
            },
            _ => Self::Sleep(random.even()),
        }
    }

    /// How long it takes, and whether it comes to its own end.
    fn expected(&self) -> (Duration, bool) {
        match self {
            Self::Sleep(duration) => (*duration, true),
            Self::Limited(limit, inner) => {
                let (duration, whole) = inner.expected();
                if duration <= *limit {
                    (duration, whole)
                } else {
                    (*limit, false)
                }
            }
            Self::Moved { first, when, to } if first < when => (*first, false),
            // Moved into the past it ends at once.
            Self::Moved { when, to, .. } => (*when.max(to), false),
        }
    }

    /// Whether it came to its own end.
    fn run(&self) -> Pin<Box<dyn Future<Output = Result<bool>> + '_>> {
        Box::pin(async move {
            match self {
                Self::Sleep(duration) => sleep(*duration).await.map(|()| true),
                Self::Limited(limit, inner) if limit.as_millis() % 4 == 1 => {
                    match fail_after(*limit, inner.run()).await {
                        Err(error) if error.is::<TooSlow>() => Ok(false),
                        other => other,
                    }
                }
                Self::Limited(limit, inner) => {
                    let ended = move_on_at(current_time() + *limit, inner.run()).await?;
                    Ok(ended.unwrap_or(false))
                }
                Self::Moved { first, when, to } => {
                    let start = current_time();
                    let scope = CancelScope::with_timeout(*first);
                    let mover = scope.clone();
                    open_nursery(async |nursery| {
                        nursery.start_soon(async {
                            sleep(*when).await?;
                            mover.set_deadline(start + *to);
                            Ok(())
                        });
                        let ended = scope.enter(sleep_forever()).await?;
                        assert!(ended.is_none() && scope.cancelled_caught());
                        nursery.cancel_scope().cancel("the mover may be late");
                        Ok(())
                    })
                    .await?;
                    Ok(false)
                }
            }
        })
    }
}

async fn task(random: Random) -> Result<()> {
    for _ in 0..=random.below(6) {
        let before = current_time();
        // A timer that is set and taken back, among those of the others.
        let mut dropped = pin!(sleep(random.even()));
        poll_fn(|context| {
            assert!(dropped.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        if random.below(2) == 0 {
            checkpoint().await?;
        }
        let timed = Timed::draw(&random, 3);
        let (duration, whole) = timed.expected();
        assert_eq!(timed.run().await?, whole);
        assert_eq!(current_time(), before + duration);
        sleep_until(before).await?;
        assert_eq!(
            current_time(),
            before + duration,
            "a time that has passed takes none"
        );
    }
    Ok(())
}

#[test]
fn dl9_random_sleeps_and_deadlines_end_when_they_must_for_every_seed() {
    for seed in 0..500 {
        let builder = Builder::new().seed(seed).clock(MockClock::autojump());
        let result = builder.run(open_nursery(async |nursery| {
            for n in 0..1 + seed % 20 {
                let random = Random(Cell::new(seed * 1000 + n));
                nursery.start_soon(task(random));
            }
            Ok(())
        }));
        result.unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
    }
}
