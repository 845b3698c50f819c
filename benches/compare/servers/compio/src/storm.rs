//! The cancel storm on compio: one `CancelToken` for all receives, and all tasks are joined.

use std::time::Instant;

use compio::BufResult;
use compio::io::AsyncRead;
use compio::net::UnixStream;
use compio::runtime::{CancelToken, FutureExt, spawn};
use kit::{Orders, Roll};

pub(crate) fn run(orders: &Orders) {
    let pairs = kit::pairs(orders).expect("sockets");
    let roll = Roll::default();
    let runtime = crate::runtime();
    runtime.block_on(async {
        let token = CancelToken::new();
        let mut tasks = Vec::new();
        let mut others = Vec::new();
        for (near, far) in pairs {
            others.push(far);
            let mut near = UnixStream::from_std(near).expect("a socket");
            let token = token.clone();
            let roll = roll.clone();
            tasks.push(spawn(async move {
                roll.here();
                let receive = near.read(Vec::with_capacity(64)).with_cancel(token);
                let BufResult(result, _) = receive.await;
                result
            }));
        }
        let count = tasks.len();
        roll.complete(count, compio::time::sleep).await;
        let begin = Instant::now();
        token.cancel();
        for task in tasks {
            let result = task.await.expect("it does not panic");
            assert!(result.is_err(), "nothing was sent");
        }
        kit::storm_over(crate::backend(&runtime), count, begin);
    });
}
