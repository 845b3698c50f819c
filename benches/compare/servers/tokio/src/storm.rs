//! The cancel storm on tokio: tasks are aborted, and all joined.

use std::time::Instant;

use kit::Orders;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::task::{JoinSet, yield_now};

pub(crate) fn run(orders: &Orders) {
    let pairs = kit::pairs(orders).expect("sockets");
    crate::runtime().block_on(async {
        let mut tasks = JoinSet::new();
        let mut others = Vec::new();
        for (near, far) in pairs {
            others.push(far);
            let mut near = UnixStream::from_std(near).expect("a socket");
            tasks.spawn(async move {
                let mut buffer = [0; 64];
                near.read(&mut buffer).await
            });
        }
        yield_now().await;
        let count = tasks.len();
        let begin = Instant::now();
        tasks.abort_all();
        while let Some(result) = tasks.join_next().await {
            assert!(result.is_err_and(|error| error.is_cancelled()));
        }
        kit::storm_over("epoll", count, begin);
    });
}
