//! Letting others run: what one turn of the loop, and one step of a task in it, cost.

use std::cell::Cell;

use trio::{checkpoint, open_nursery};

use crate::support::{Row, Sample, Scale, Stopwatch, run};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("yield, 1 task", |scale| yielding(scale, 1)),
        Row::new("yield, 2 tasks", |scale| yielding(scale, 2)),
        Row::new("yield, 100 tasks", |scale| yielding(scale, 100)).aim(20.0),
    ]
}

fn yielding(scale: Scale, tasks: u32) -> Sample {
    let each = scale.of(200_000 / tasks);
    run(async {
        let yields = Cell::new(0);
        let watch = Stopwatch::start();
        open_nursery(async |nursery| {
            for _ in 0..tasks {
                nursery.start_soon(async {
                    for _ in 0..each {
                        checkpoint().await?;
                        yields.set(yields.get() + 1);
                    }
                    Ok(())
                });
            }
            Ok(())
        })
        .await?;
        let sample = watch.stop(tasks * each);
        assert_eq!(yields.get(), tasks * each, "every task has gone on");
        Ok(sample)
    })
}
