//! Setting a timer and taking it back, among many that are pending.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use trio::{checkpoint, open_nursery, sleep};

use crate::support::{Row, Sample, Scale, Stopwatch, run};

pub(crate) fn rows() -> Vec<Row> {
    [(1, "1"), (10_000, "10,000"), (1_000_000, "1,000,000")]
        .into_iter()
        .map(|(pending, name)| {
            let name = format!("sleep begun and dropped, {name} pending");
            Row::new(name, move |scale| begin_and_drop(scale, pending))
        })
        .collect()
}

fn begin_and_drop(scale: Scale, pending: u32) -> Sample {
    let pending = scale.of_surroundings(pending);
    let count = scale.of(50_000);
    run(open_nursery(async |nursery| {
        let mut random = Random(1);
        for _ in 0..pending {
            nursery.start_soon(sleep(random.duration()));
        }
        // One turn to begin to wait, and one to be counted from its end.
        checkpoint().await?;
        checkpoint().await?;
        let mut waiting = 0;
        let watch = Stopwatch::start();
        for _ in 0..count {
            let mut sleep = pin!(sleep(random.duration()));
            poll_fn(|context| {
                waiting += u32::from(sleep.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
            // The budget of a turn is for tasks that never wait, and this one does not.
            if waiting % 100 == 0 {
                checkpoint().await?;
            }
        }
        let sample = watch.stop(count);
        assert_eq!(waiting, count, "every sleep had to wait");
        assert_eq!(nursery.child_count(), pending as usize, "none has ended");
        nursery.cancel_scope().cancel("measured");
        Ok(Some(sample))
    }))
    .expect("the body has a value")
}

/// Durations from one hour to two, the same in each round (Knuth's multiplier).
struct Random(u64);

impl Random {
    fn duration(&mut self) -> Duration {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        Duration::from_millis(3_600_000 + (self.0 >> 33) % 3_600_000)
    }
}
