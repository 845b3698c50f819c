//! The cancel storm on smol: tasks are cancelled one after another, which also joins them.

use std::os::unix::net::UnixStream;
use std::time::Instant;

use futures_lite::AsyncReadExt;
use kit::{Orders, Roll};
use smol::{Async, LocalExecutor};

pub(crate) fn run(orders: &Orders) {
    let pairs = kit::pairs(orders).expect("sockets");
    let roll = Roll::default();
    let executor = LocalExecutor::new();
    smol::block_on(executor.run(async {
        let mut tasks = Vec::new();
        let mut others = Vec::new();
        for (near, far) in pairs {
            others.push(far);
            let mut near: Async<UnixStream> = Async::new(near).expect("a socket");
            let roll = roll.clone();
            tasks.push(executor.spawn(async move {
                roll.here();
                let mut buffer = [0; 64];
                near.read(&mut buffer).await
            }));
        }
        let count = tasks.len();
        roll.complete(count, smol::Timer::after).await;
        let begin = Instant::now();
        for task in tasks {
            assert!(task.cancel().await.is_none());
        }
        kit::storm_over("epoll", count, begin);
    }));
}
