//! Out of the run and back, and into it from another thread.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::mpsc;

use trio::lowlevel::{RunVar, current_trio_token};
use trio::{checkpoint, from_thread, sleep_forever, to_thread};

use crate::support::{Row, Sample, Scale, Stopwatch, run};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("thread round trip", round_trip),
        Row::new("call from a thread into its task", from_its_thread),
        Row::new("run_sync_soon by the run itself", by_itself),
        Row::new(
            "run_sync_soon from another thread, the run awake",
            from_elsewhere,
        ),
        Row::new(
            "run_sync_soon from another thread and back, the run asleep",
            asleep,
        ),
    ]
}

/// A task awaits a function that does nothing; the thread is warm.
fn round_trip(scale: Scale) -> Sample {
    let count = scale.of(20_000);
    run(async {
        to_thread::run_sync(|| ()).await?;
        let watch = Stopwatch::start();
        for _ in 0..count {
            to_thread::run_sync(|| ()).await?;
        }
        Ok(watch.stop(count))
    })
}

fn from_its_thread(scale: Scale) -> Sample {
    let count = scale.of(20_000);
    run(async {
        let call = to_thread::run_sync(move || {
            let watch = Stopwatch::start();
            for _ in 0..count {
                from_thread::run_sync(|| ())?;
            }
            Ok::<_, trio::Error>(watch.stop(count))
        });
        call.await?
    })
}

/// How often the run has been called.
static CALLS: RunVar<Rc<Cell<u32>>> = RunVar::with_default("calls", Rc::default);

fn call() {
    CALLS.with(|calls| {
        if let Some(calls) = calls {
            calls.set(calls.get() + 1);
        }
    });
}

fn by_itself(scale: Scale) -> Sample {
    let count = scale.of(100_000);
    run(async {
        let token = current_trio_token();
        let calls = CALLS.get().expect("it has a default");
        let watch = Stopwatch::start();
        while calls.get() < count {
            for _ in 0..100.min(count - calls.get()) {
                token.run_sync_soon(call)?;
            }
            checkpoint().await?;
        }
        Ok(watch.stop(count))
    })
}

/// What it takes until all have been made, by a thread that asks as fast as it can.
fn from_elsewhere(scale: Scale) -> Sample {
    let count = scale.of(200_000);
    run(async {
        let token = current_trio_token();
        let calls = CALLS.get().expect("it has a default");
        let watch = Stopwatch::start();
        let asking = to_thread::run_sync(move || {
            for _ in 0..count {
                token.run_sync_soon(call)?;
            }
            Ok::<_, trio::Error>(())
        });
        asking.await??;
        while calls.get() < count {
            checkpoint().await?;
        }
        Ok(watch.stop(count))
    })
}

/// A thread asks, and is told by the call itself, before it asks again.
fn asleep(scale: Scale) -> Sample {
    let count = scale.of(20_000);
    run(async {
        let token = current_trio_token();
        let (done, wait) = mpsc::channel();
        let asking = async {
            to_thread::run_sync(move || {
                let watch = Stopwatch::start();
                for _ in 0..count {
                    let done = done.clone();
                    token.run_sync_soon(move || done.send(()).expect("it waits"))?;
                    wait.recv().expect("the run answers");
                }
                Ok::<_, trio::Error>(watch.stop(count))
            })
            .await?
        };
        let mut sample = None;
        trio::open_nursery(async |nursery| {
            nursery.start_soon(sleep_forever());
            sample = Some(asking.await?);
            nursery.cancel_scope().cancel("measured");
            Ok(())
        })
        .await?;
        Ok(sample.expect("it has been measured"))
    })
}
