//! The cancel storm on monoio: one `Canceller` for all receives, and all tasks are joined.

use std::time::Instant;

use kit::{Orders, Roll};
use monoio::io::{CancelableAsyncReadRent, Canceller};
use monoio::net::UnixStream;

pub(crate) fn run(orders: &Orders) {
    let pairs = kit::pairs(orders).expect("sockets");
    let roll = Roll::default();
    crate::runtime().block_on(async {
        let canceller = Canceller::new();
        let mut tasks = Vec::new();
        let mut others = Vec::new();
        for (near, far) in pairs {
            others.push(far);
            let mut near = UnixStream::from_std(near).expect("a socket");
            let handle = canceller.handle();
            let roll = roll.clone();
            tasks.push(monoio::spawn(async move {
                roll.here();
                near.cancelable_read(Vec::with_capacity(64), handle).await.0
            }));
        }
        let count = tasks.len();
        roll.complete(count, monoio::time::sleep).await;
        let begin = Instant::now();
        drop(canceller.cancel());
        for task in tasks {
            assert!(task.await.is_err());
        }
        kit::storm_over("io_uring", count, begin);
    });
}
