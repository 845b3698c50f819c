//! How much memory a child takes, and whether a million of them take a million times as much, and
//! as long.
//!
//! `cargo bench --bench memory`. Bytes are those asked of the allocator. They do not include what
//! the allocator adds, which is up to 16 bytes for each allocation with that of glibc. What is left
//! behind is the memory of tasks that is kept for the tasks to come, which has a bound.

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "the rows of the other bench are not used here")]
mod support;

use std::alloc::System;
use std::cell::Cell;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use trio::{Result, checkpoint, open_nursery, sleep_forever};

use support::{Arguments, Scale, Stopwatch, run};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() {
    let arguments = Arguments::parse();
    // What is allocated once, by the thread or by whatever prints, is not a child's.
    live(1);
    let counts: [u32; 3] = match arguments.scale {
        Scale::Full => [10_000, 100_000, 1_000_000],
        Scale::Counted | Scale::Toy => [100, 200, 400],
    };
    if arguments.scale == Scale::Full {
        println!(
            "{:>9}  {:>22}  {:>22}  {:>12}  {:>12}",
            "children",
            "bytes a child, spawned",
            "bytes a child, waiting",
            "left behind",
            "ns a child"
        );
    }
    for count in counts {
        let before = Region::new(ALLOCATOR);
        let found = live(count);
        let left = bytes(&before);
        if arguments.scale == Scale::Full {
            println!(
                "{count:>9}  {:>22.1}  {:>22.1}  {left:>12}  {:>12.1}",
                found.spawned, found.waiting, found.nanoseconds
            );
        }
        found.check();
    }
}

/// What a child was found to take.
struct Found {
    spawned: f64,
    waiting: f64,
    nanoseconds: f64,
}

impl Found {
    /// Growing vectors may be half empty; nothing else may depend on how many children there are.
    fn check(&self) {
        assert!(
            self.spawned <= MOST_SPAWNED,
            "{} bytes for a child that has not run",
            self.spawned
        );
        assert!(
            self.waiting <= MOST_WAITING,
            "{} bytes for a child that waits",
            self.waiting
        );
    }
}

/// Bytes of a child of this bench at most; a little more than was measured.
const MOST_SPAWNED: f64 = 224.0;
const MOST_WAITING: f64 = 512.0;

fn bytes(since: &Region<'_, System>) -> f64 {
    let change = since.change();
    change.bytes_allocated as f64 - change.bytes_deallocated as f64
}

/// Starts `count` children in one nursery, lets each of them wait, cancels and joins them.
fn live(count: u32) -> Found {
    run(async {
        let woken = Cell::new(0);
        let region = Region::new(ALLOCATOR);
        let watch = Stopwatch::start();
        let per_child = |bytes: f64| bytes / f64::from(count);
        let (mut spawned, mut waiting) = (0.0, 0.0);
        open_nursery(async |nursery| {
            for _ in 0..count {
                nursery.start_soon(child(&woken));
            }
            spawned = per_child(bytes(&region));
            checkpoint().await?;
            waiting = per_child(bytes(&region));
            nursery.cancel_scope().cancel("counted");
            Ok(())
        })
        .await?;
        let sample = watch.stop(count);
        assert_eq!(woken.get(), count, "every child has run and ended");
        Ok(Found {
            spawned,
            waiting,
            nanoseconds: sample.nanoseconds(),
        })
    })
}

async fn child(woken: &Cell<u32>) -> Result<()> {
    let ended = sleep_forever().await;
    woken.set(woken.get() + 1);
    ended
}
