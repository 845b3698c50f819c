//! The cancel storm on compio: one `CancelToken` for all receives, and all tasks are joined.

use std::time::Instant;

use compio::BufResult;
use compio::io::AsyncRead;
use compio::net::UnixStream;
use compio::runtime::{CancelToken, FutureExt, spawn};
use kit::{Orders, yield_now};

pub(crate) fn run(orders: &Orders) {
    let pairs = kit::pairs(orders).expect("sockets");
    let runtime = crate::runtime();
    runtime.block_on(async {
        let token = CancelToken::new();
        let mut tasks = Vec::new();
        let mut others = Vec::new();
        for (near, far) in pairs {
            others.push(far);
            let mut near = UnixStream::from_std(near).expect("a socket");
            let token = token.clone();
            tasks.push(spawn(async move {
                let receive = near.read(Vec::with_capacity(64)).with_cancel(token);
                let BufResult(result, _) = receive.await;
                result
            }));
        }
        yield_now().await;
        let count = tasks.len();
        let begin = Instant::now();
        token.cancel();
        for task in tasks {
            let result = task.await.expect("it does not panic");
            assert!(result.is_err(), "nothing was sent");
        }
        kit::storm_over(crate::backend(&runtime), count, begin);
    });
}
