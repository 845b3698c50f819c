//! Sleeps and deadlines, nested and many at once, against arithmetic.
//!
//! The model computes by addition when each step must end, which in virtual time is exact. Many
//! timers are set and taken back on the way, in any order.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use trio::{
    CancelScope, Result, TooSlow, checkpoint, current_time, fail_after, move_on_at, open_nursery,
    sleep, sleep_forever, sleep_until,
};

use super::{Random, agree, check, simulate};

const TASKS: usize = 12;

#[derive(Clone, Debug)]
struct Step {
    task: usize,
    /// A timer that is set before and taken back after, among those of the other tasks.
    aside: Duration,
    yields: bool,
    timed: Timed,
}

/// Something that takes a known time, and that nothing inside it cuts short.
#[derive(Clone, Debug)]
enum Timed {
    Sleep(Duration),
    /// Ends after the shorter of the two.
    Limited(Duration, Box<Self>),
    /// Another task moves the limit to a different time after a while.
    Moved {
        first: Duration,
        when: Duration,
        to: Duration,
    },
}

/// An even number of milliseconds, above zero.
fn even(random: &mut Random) -> Duration {
    Duration::from_millis(2 + 2 * random.below(200))
}

/// An odd one: never the same moment as an even one after the same time.
fn odd(random: &mut Random) -> Duration {
    Duration::from_millis(1 + 2 * random.below(200))
}

fn draw(random: &mut Random) -> Step {
    Step {
        task: random.index(TASKS),
        aside: even(random),
        yields: random.below(2) == 0,
        timed: Timed::draw(random, 3),
    }
}

impl Timed {
    fn draw(random: &mut Random, depth: u32) -> Self {
        match random.below(4) {
            0 if depth > 0 => Self::Limited(odd(random), Box::new(Self::draw(random, depth - 1))),
            1 => Self::Moved {
                first: odd(random),
                when: even(random),
                to: odd(random),
            },
            _ => Self::Sleep(even(random)),
        }
    }

    /// How long it takes, and whether it reaches its own end.
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
            Self::Moved { first, when, .. } if first < when => (*first, false),
            // Moved into the past it ends at once.
            Self::Moved { when, to, .. } => (*when.max(to), false),
        }
    }

    /// Returns whether it reached its own end.
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
                Self::Moved { first, when, to } => moved(*first, *when, *to).await,
            }
        })
    }
}

async fn moved(first: Duration, when: Duration, to: Duration) -> Result<bool> {
    let start = current_time();
    let scope = CancelScope::with_timeout(first);
    let mover = scope.clone();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            sleep(when).await?;
            mover.set_deadline(start + to);
            Ok(())
        });
        let ended = scope.enter(sleep_forever()).await?;
        agree(&ended, &None, &"the last deadline", &scope)?;
        agree(&scope.cancelled_caught(), &true, &"the end", &scope)?;
        nursery.cancel_scope().cancel("the mover may be late");
        Ok(())
    })
    .await?;
    Ok(false)
}

async fn task(task: usize, program: &[Step]) -> Result<()> {
    for step in program.iter().filter(|step| step.task == task) {
        let before = current_time();
        let mut aside = pin!(sleep(step.aside));
        let waits = poll_fn(|context| Poll::Ready(aside.as_mut().poll(context).is_pending()));
        agree(&waits.await, &true, &"the timer aside waits", step)?;
        if step.yields {
            checkpoint().await?;
        }
        let (took, whole) = step.timed.expected();
        agree(&step.timed.run().await?, &whole, step, &"the whole of it")?;
        agree(&(current_time() - before), &took, step, &"its time")?;
        sleep_until(before).await?;
        let now = current_time() - before;
        agree(&now, &took, step, &"a time that has passed takes none")?;
    }
    Ok(())
}

#[test]
fn dl9_sleeps_and_deadlines_end_when_the_model_says_for_every_seed() {
    check("timers", draw, |program, seed| {
        simulate(
            seed,
            open_nursery(async |nursery| {
                for number in 0..TASKS {
                    nursery.start_soon(task(number, program));
                }
                Ok(())
            }),
        )
    });
}
