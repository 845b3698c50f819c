//! Channels: what one value from one task to another costs, and from one thread to another.

use trio::channel::UNBOUNDED;
use trio::{
    open_broadcast_channel, open_memory_channel, open_nursery, open_thread_channel,
    open_watch_channel, select,
};

use crate::support::{Row, Sample, Scale, Stopwatch, run};

const VALUES: u32 = 200_000;

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("channel, buffer 64, one item", |scale| stream(scale, 64)).aim(20.0),
        Row::new("channel, rendezvous, one item", |scale| stream(scale, 0)),
        Row::new("channel, unbounded, one item", |scale| {
            stream(scale, UNBOUNDED)
        }),
        Row::new("channel, there and back", ping_pong),
        Row::new("channel, send and receive in one task", alone),
        Row::new("channel, select of two, one item", choice),
        Row::new("broadcast, 4 receivers, one item to all", broadcast),
        Row::new("watch, set and seen", watch),
        Row::new("thread channel, within a run, one item", within),
        Row::new("thread channel, between threads, one item", between),
    ]
}

fn stream(scale: Scale, capacity: usize) -> Sample {
    let count = scale.of(VALUES);
    run(async {
        let (send, receive) = open_memory_channel(capacity);
        let watch = Stopwatch::start();
        open_nursery(async |nursery| {
            nursery.start_soon(async move {
                for n in 0..count {
                    send.send(n).await?;
                }
                Ok(())
            });
            let mut next = 0;
            while let Some(n) = receive.next().await? {
                assert_eq!(n, next);
                next += 1;
            }
            assert_eq!(next, count);
            Ok(())
        })
        .await?;
        Ok(watch.stop(count))
    })
}

fn ping_pong(scale: Scale) -> Sample {
    let count = scale.of(VALUES / 4);
    run(async {
        let (send, there) = open_memory_channel(0);
        let (answer, back) = open_memory_channel(0);
        let watch = Stopwatch::start();
        open_nursery(async |nursery| {
            nursery.start_soon(async move {
                while let Some(n) = there.next().await? {
                    answer.send(n).await?;
                }
                Ok(())
            });
            for n in 0..count {
                send.send(n).await?;
                assert_eq!(back.receive().await?, n);
            }
            drop(send);
            Ok(())
        })
        .await?;
        Ok(watch.stop(count))
    })
}

fn alone(scale: Scale) -> Sample {
    let count = scale.of(VALUES);
    run(async {
        let (send, receive) = open_memory_channel(64);
        let watch = Stopwatch::start();
        for n in 0..count {
            send.send(n).await?;
            assert_eq!(receive.receive().await?, n);
        }
        Ok(watch.stop(count))
    })
}

fn choice(scale: Scale) -> Sample {
    let count = scale.of(VALUES / 2);
    run(async {
        let (left, right) = (open_memory_channel(64), open_memory_channel(64));
        let watch = Stopwatch::start();
        for n in 0..count {
            left.0.send(n).await?;
            let (case, value) = select([left.1.receive(), right.1.receive()]).await?;
            assert_eq!((case, value?), (0, n));
        }
        Ok(watch.stop(count))
    })
}

fn broadcast(scale: Scale) -> Sample {
    let count = scale.of(VALUES / 4);
    run(async {
        let (send, receive) = open_broadcast_channel(64);
        let watch = Stopwatch::start();
        open_nursery(async |nursery| {
            for mut receive in vec![receive; 4] {
                nursery.start_soon(async move {
                    let mut next = 0;
                    while let Some(n) = receive.next().await? {
                        assert_eq!(n, next);
                        next += 1;
                    }
                    assert_eq!(next, count);
                    Ok(())
                });
            }
            for n in 0..count {
                send.send(n).await?;
            }
            drop(send);
            Ok(())
        })
        .await?;
        Ok(watch.stop(count))
    })
}

fn watch(scale: Scale) -> Sample {
    let count = scale.of(VALUES / 4);
    run(async {
        let (send, mut receive) = open_watch_channel(0);
        let watch = Stopwatch::start();
        for n in 1..=count {
            send.send(n);
            assert_eq!(*receive.changed().await?, n);
        }
        Ok(watch.stop(count))
    })
}

fn within(scale: Scale) -> Sample {
    let count = scale.of(VALUES);
    run(async {
        let (send, receive) = open_thread_channel(64);
        let watch = Stopwatch::start();
        open_nursery(async |nursery| {
            nursery.start_soon(async move {
                for n in 0..count {
                    send.send(n).await?;
                }
                Ok(())
            });
            let mut next = 0;
            while let Some(n) = receive.next().await? {
                assert_eq!(n, next);
                next += 1;
            }
            Ok(())
        })
        .await?;
        Ok(watch.stop(count))
    })
}

#[expect(clippy::disallowed_methods, reason = "a thread that is in no run")]
fn between(scale: Scale) -> Sample {
    let count = scale.of(VALUES / 4);
    let (send, receive) = open_thread_channel(64);
    let watch = Stopwatch::start();
    let sender = std::thread::spawn(move || {
        for n in 0..count {
            send.send_blocking(n).expect("the receiver stays");
        }
    });
    run(async {
        let mut next = 0;
        while let Some(n) = receive.next().await? {
            assert_eq!(n, next);
            next += 1;
        }
        Ok(())
    });
    let sample = watch.stop(count);
    sender.join().expect("the sender does not panic");
    sample
}
