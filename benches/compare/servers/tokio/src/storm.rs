//! The cancel storm on tokio: tasks are aborted, and all joined.

use std::time::Instant;

use kit::{Orders, Roll};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

pub(crate) fn run(orders: &Orders) {
    let pairs = kit::pairs(orders).expect("sockets");
    let roll = Roll::default();
    crate::runtime().block_on(async {
        let mut tasks = JoinSet::new();
        let mut others = Vec::new();
        for (near, far) in pairs {
            others.push(far);
            let mut near = UnixStream::from_std(near).expect("a socket");
            let roll = roll.clone();
            tasks.spawn(async move {
                roll.here();
                let mut buffer = [0; 64];
                near.read(&mut buffer).await
            });
        }
        let count = tasks.len();
        roll.complete(count, tokio::time::sleep).await;
        let begin = Instant::now();
        tasks.abort_all();
        while let Some(result) = tasks.join_next().await {
            assert!(result.is_err_and(|error| error.is_cancelled()));
        }
        kit::storm_over("epoll", count, begin);
    });
}
