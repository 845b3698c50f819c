//! A wait by itself: what every lock, channel, receive and sleep pays for.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use trio::{checkpoint, sleep_forever};

use crate::support::{Row, Sample, Scale, Stopwatch, run};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("wait begun and dropped", |scale| begin(scale, 0)),
        Row::new("wait begun, polled in vain and dropped", |scale| {
            begin(scale, 1)
        }),
    ]
}

fn begin(scale: Scale, polls: u32) -> Sample {
    let count = scale.of(100_000);
    run(async {
        let mut waiting = 0;
        let watch = Stopwatch::start();
        for _ in 0..count {
            let mut wait = pin!(sleep_forever());
            poll_fn(|context| {
                for _ in 0..=polls {
                    waiting += u32::from(wait.as_mut().poll(context).is_pending());
                }
                Poll::Ready(())
            })
            .await;
            // The budget of a turn is for tasks that never wait, and this one does not.
            if waiting % 100 == 0 {
                checkpoint().await?;
            }
        }
        let sample = watch.stop(count);
        assert_eq!(waiting, count * (1 + polls), "nothing ended the wait");
        Ok(sample)
    })
}
