//! A wake that has to come through nested nurseries: what each further level costs.
//!
//! The levels are types, so that nothing is boxed that a program would not box: between two levels
//! stand only the frames of the library, and of the `async` block that opened the nursery.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::task::{Poll, Waker};

use trio::{Result, checkpoint, open_nursery};

use crate::support::{Row, Sample, Scale, Stopwatch, run};

/// A level on a lone wake, up to depth 4; beyond it is to grow no faster, up to depth 16.
const AIM: f64 = 15.0;

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    family(&mut rows, "yield, child in child", |scale, depth| {
        yielding(scale, async |bottom: &Bottom| {
            in_children(depth, bottom).await
        })
    });
    family(&mut rows, "yield, body in body", |scale, depth| {
        yielding(scale, async |bottom: &Bottom| {
            in_bodies(depth, bottom).await
        })
    });
    family(
        &mut rows,
        "event and answer, child in child",
        |scale, depth| {
            answering(scale, async |bottom: &Bottom| {
                in_children(depth, bottom).await
            })
        },
    );
    rows
}

/// Rows for some depths, and for what a level adds between them.
fn family(rows: &mut Vec<Row>, what: &str, measure: fn(Scale, u32) -> Sample) {
    let name = |depth| format!("{what}, depth {depth}");
    for depth in [0, 1, 2, 4, 8, 16] {
        rows.push(Row::new(name(depth), move |scale| measure(scale, depth)));
    }
    for (from, to) in [(0, 1), (1, 4), (4, 8), (8, 16)] {
        let step = format!("{what}, a level from {from} to {to}");
        rows.push(Row::difference(step, &name(to), &name(from), to - from).aim(AIM));
    }
}

/// What is at the bottom of the nurseries.
struct Bottom {
    wakes: u32,
    /// How often the bottom has gone on.
    woken: Cell<u32>,
    sample: Cell<Option<Sample>>,
    /// If the bottom answers events; else it yields.
    events: Option<Events>,
}

#[derive(Default)]
struct Events {
    asked: Event,
    answered: Event,
}

/// What a program might make by hand: a flag, and the waker of who waits for it.
#[derive(Default)]
struct Event {
    set: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Event {
    fn set(&self) {
        self.set.set(true);
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    fn wait(&self) -> impl Future<Output = ()> {
        poll_fn(|context| {
            if self.set.take() {
                return Poll::Ready(());
            }
            let mut waker = self.waker.borrow_mut();
            match &mut *waker {
                Some(waker) => waker.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
            Poll::Pending
        })
    }
}

/// The time of a yield, taken at the bottom.
fn yielding(scale: Scale, nested: impl AsyncFnOnce(&Bottom) -> Result<()>) -> Sample {
    let bottom = Bottom {
        wakes: scale.of(50_000),
        woken: Cell::new(0),
        sample: Cell::new(None),
        events: None,
    };
    run(nested(&bottom));
    assert_eq!(bottom.woken.get(), bottom.wakes, "the bottom was reached");
    bottom.sample.get().expect("the bottom has taken the time")
}

/// The time from an event at the top to the answer of the bottom: two wakes, of which one goes down.
fn answering(scale: Scale, nested: impl AsyncFnOnce(&Bottom) -> Result<()>) -> Sample {
    let bottom = Bottom {
        wakes: scale.of(20_000),
        woken: Cell::new(0),
        sample: Cell::new(None),
        events: Some(Events::default()),
    };
    let bottom = &bottom;
    run(open_nursery(async |nursery| {
        nursery.start_soon(nested(bottom));
        if let Some(events) = &bottom.events {
            let watch = Stopwatch::start();
            for _ in 0..bottom.wakes {
                events.asked.set();
                events.answered.wait().await;
            }
            bottom.sample.set(Some(watch.stop(bottom.wakes)));
        }
        Ok(())
    }));
    assert_eq!(bottom.woken.get(), bottom.wakes, "the bottom was reached");
    bottom.sample.get().expect("the top has taken the time")
}

async fn in_children(depth: u32, bottom: &Bottom) -> Result<()> {
    match depth {
        0 => Leaf::run(bottom).await,
        1 => Child::<Leaf>::run(bottom).await,
        2 => Child::<Child<Leaf>>::run(bottom).await,
        4 => Child4::<Leaf>::run(bottom).await,
        8 => Child4::<Child4<Leaf>>::run(bottom).await,
        16 => Child4::<Child4<Child4<Child4<Leaf>>>>::run(bottom).await,
        other => unreachable!("depth {other} has no type"),
    }
}

async fn in_bodies(depth: u32, bottom: &Bottom) -> Result<()> {
    match depth {
        0 => Leaf::run(bottom).await,
        1 => Body::<Leaf>::run(bottom).await,
        2 => Body::<Body<Leaf>>::run(bottom).await,
        4 => Body4::<Leaf>::run(bottom).await,
        8 => Body4::<Body4<Leaf>>::run(bottom).await,
        16 => Body4::<Body4<Body4<Body4<Leaf>>>>::run(bottom).await,
        other => unreachable!("depth {other} has no type"),
    }
}

/// A number of nurseries, one in the other, down to the bottom.
trait Nest {
    fn run(bottom: &Bottom) -> impl Future<Output = Result<()>>;
}

struct Leaf;

impl Nest for Leaf {
    async fn run(bottom: &Bottom) -> Result<()> {
        let watch = Stopwatch::start();
        for _ in 0..bottom.wakes {
            match &bottom.events {
                None => checkpoint().await?,
                Some(events) => {
                    events.asked.wait().await;
                    events.answered.set();
                }
            }
            bottom.woken.set(bottom.woken.get() + 1);
        }
        // Of events the top takes the time.
        if bottom.events.is_none() {
            bottom.sample.set(Some(watch.stop(bottom.wakes)));
        }
        Ok(())
    }
}

/// A nursery with one child, which is the rest.
struct Child<N>(PhantomData<N>);
type Child4<N> = Child<Child<Child<Child<N>>>>;

impl<N: Nest> Nest for Child<N> {
    async fn run(bottom: &Bottom) -> Result<()> {
        open_nursery(async |nursery| {
            nursery.start_soon(N::run(bottom));
            Ok(())
        })
        .await
    }
}

/// A nursery whose body is the rest.
struct Body<N>(PhantomData<N>);
type Body4<N> = Body<Body<Body<Body<N>>>>;

impl<N: Nest> Nest for Body<N> {
    async fn run(bottom: &Bottom) -> Result<()> {
        open_nursery(async |_| N::run(bottom).await).await
    }
}
