//! Cancel scopes and deadlines around something: ready at once, or woken in time.

use std::time::Duration;

use trio::{CancelScope, checkpoint, fail_after, move_on_after};

use crate::support::{Row, Sample, Scale, Stopwatch, run};

const LONG: Duration = Duration::from_secs(5);

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("timeout around a ready future", move_on).aim(10.0),
        Row::new("timeout that fails around a ready future", fail).aim(10.0),
        Row::new("timeout around a yield", move_on_yield),
        Row::new("scope around a ready future", enter),
    ]
}

fn move_on(scale: Scale) -> Sample {
    let count = scale.of(200_000);
    run(async {
        let mut sum = 0;
        let watch = Stopwatch::start();
        for _ in 0..count {
            sum += move_on_after(LONG, async { Ok(1) }).await?.unwrap_or(0);
        }
        let sample = watch.stop(count);
        assert_eq!(sum, count, "every future was in time");
        Ok(sample)
    })
}

fn fail(scale: Scale) -> Sample {
    let count = scale.of(200_000);
    run(async {
        let mut sum = 0;
        let watch = Stopwatch::start();
        for _ in 0..count {
            sum += fail_after(LONG, async { Ok(1) }).await?;
        }
        let sample = watch.stop(count);
        assert_eq!(sum, count, "every future was in time");
        Ok(sample)
    })
}

/// The deadline is counted, set and taken back each time; a yield alone is a row of its own.
fn move_on_yield(scale: Scale) -> Sample {
    let count = scale.of(50_000);
    run(async {
        let mut in_time = 0;
        let watch = Stopwatch::start();
        for _ in 0..count {
            in_time += u32::from(move_on_after(LONG, checkpoint()).await?.is_some());
        }
        let sample = watch.stop(count);
        assert_eq!(in_time, count, "every yield was in time");
        Ok(sample)
    })
}

fn enter(scale: Scale) -> Sample {
    let count = scale.of(100_000);
    run(async {
        let mut sum = 0;
        let watch = Stopwatch::start();
        for _ in 0..count {
            let scope = CancelScope::new();
            sum += scope.enter(async { Ok(1) }).await?.unwrap_or(0);
        }
        let sample = watch.stop(count);
        assert_eq!(sum, count, "no scope was cancelled");
        Ok(sample)
    })
}
