//! The cancel storm on smol: tasks are cancelled one after another, which also joins them.

use std::os::unix::net::UnixStream;
use std::time::Instant;

use futures_lite::AsyncReadExt;
use futures_lite::future::yield_now;
use kit::Orders;
use smol::{Async, LocalExecutor};

pub(crate) fn run(orders: &Orders) {
    let pairs = kit::pairs(orders).expect("sockets");
    let executor = LocalExecutor::new();
    smol::block_on(executor.run(async {
        let mut tasks = Vec::new();
        let mut others = Vec::new();
        for (near, far) in pairs {
            others.push(far);
            let mut near: Async<UnixStream> = Async::new(near).expect("a socket");
            tasks.push(executor.spawn(async move {
                let mut buffer = [0; 64];
                near.read(&mut buffer).await
            }));
        }
        // An executor of async-executor runs so many tasks before it looks around.
        for _ in 0..tasks.len() / 100 + 2 {
            yield_now().await;
        }
        let count = tasks.len();
        let begin = Instant::now();
        for task in tasks {
            assert!(task.cancel().await.is_none());
        }
        kit::storm_over("epoll", count, begin);
    }));
}
