//! Starting a child that waits, cancelling it where it waits, and waiting until it has ended.

use trio::{CancelScope, ChildState, Result, checkpoint, open_nursery, sleep_forever};

use crate::spawn::CHILDREN;
use crate::support::{Row, Sample, Scale, Stopwatch, run};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("spawn + cancel + join, 1000 in one nursery", in_one_nursery).aim(80.0),
        Row::new("spawn + cancel + join, before the child has run", unborn).aim(80.0),
        Row::new("spawn + cancel + join, 1000 scopes at once", scopes_at_once).aim(80.0),
        Row::new("spawn + cancel + join by handle, 1000 at once", by_handle).aim(80.0),
        Row::new(
            "spawn + cancel + join, one scope at a time",
            one_scope_at_a_time,
        )
        .aim(80.0),
    ]
}

/// The whole nursery is cancelled at once; the time includes the wait of each child.
fn in_one_nursery(scale: Scale) -> Sample {
    nurseries(scale, async || checkpoint().await)
}

/// The children find out when they first ask.
fn unborn(scale: Scale) -> Sample {
    nurseries(scale, async || Ok(()))
}

fn nurseries(scale: Scale, before: impl AsyncFn() -> Result<()>) -> Sample {
    let nurseries = scale.of(50);
    run(async {
        let mut cancelled = 0;
        let watch = Stopwatch::start();
        for _ in 0..nurseries {
            open_nursery(async |nursery| {
                for _ in 0..CHILDREN {
                    nursery.start_soon(sleep_forever());
                }
                before().await?;
                cancelled += u32::try_from(nursery.child_count()).unwrap_or(0);
                nursery.cancel_scope().cancel("");
                Ok(())
            })
            .await?;
        }
        let sample = watch.stop(nurseries * CHILDREN);
        assert_eq!(cancelled, nurseries * CHILDREN, "every child was alive");
        Ok(sample)
    })
}

/// Each child in a scope of its own, cancelled one by one and joined one by one.
fn scopes_at_once(scale: Scale) -> Sample {
    let batches = scale.of(50);
    run(open_nursery(async |nursery| {
        let mut children = Vec::with_capacity(CHILDREN as usize);
        let mut caught = 0;
        let watch = Stopwatch::start();
        for _ in 0..batches {
            for _ in 0..CHILDREN {
                let scope = CancelScope::new();
                children.push((nursery.spawn(scope.enter(sleep_forever())), scope));
            }
            checkpoint().await?;
            for (_, scope) in &children {
                scope.cancel("");
            }
            for (mut handle, scope) in children.drain(..) {
                let ended: Option<()> = handle.join().await?;
                caught += u32::from(ended.is_none() && scope.cancelled_caught());
            }
        }
        let sample = watch.stop(batches * CHILDREN);
        assert_eq!(caught, batches * CHILDREN, "every child was cancelled");
        Ok(Some(sample))
    }))
    .expect("the nursery was not cancelled")
}

/// The same without scopes of their own: each child cancelled through its handle.
fn by_handle(scale: Scale) -> Sample {
    let batches = scale.of(50);
    run(open_nursery(async |nursery| {
        let mut children = Vec::with_capacity(CHILDREN as usize);
        let mut cancelled = 0;
        let watch = Stopwatch::start();
        for _ in 0..batches {
            children.extend((0..CHILDREN).map(|_| nursery.spawn(sleep_forever())));
            checkpoint().await?;
            for child in &children {
                child.cancel("");
            }
            for mut child in children.drain(..) {
                cancelled += u32::from(child.wait().await? == ChildState::Cancelled);
            }
        }
        let sample = watch.stop(batches * CHILDREN);
        assert_eq!(cancelled, batches * CHILDREN, "every child was cancelled");
        Ok(Some(sample))
    }))
    .expect("the nursery was not cancelled")
}

/// Two turns of the loop for each: one in which the child begins to wait, one in which it ends.
fn one_scope_at_a_time(scale: Scale) -> Sample {
    let count = scale.of(20_000);
    run(open_nursery(async |nursery| {
        let mut caught = 0;
        let watch = Stopwatch::start();
        for _ in 0..count {
            let scope = CancelScope::new();
            let mut handle = nursery.spawn(scope.enter(sleep_forever()));
            checkpoint().await?;
            scope.cancel("");
            let ended: Option<()> = handle.join().await?;
            caught += u32::from(ended.is_none());
        }
        let sample = watch.stop(count);
        assert_eq!(caught, count, "every child was cancelled");
        Ok(Some(sample))
    }))
    .expect("the nursery was not cancelled")
}
