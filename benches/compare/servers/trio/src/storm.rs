//! The cancel storm on trio: the scope of a nursery is cancelled, and the nursery waits for all.

use std::time::Instant;

use kit::{Orders, Roll};
use trio::lowlevel::Descriptor;
use trio::net::TcpStream;
use trio::{open_nursery, sleep};

pub(crate) fn run(orders: &Orders) {
    let pairs = kit::pairs(orders).expect("sockets");
    let count = pairs.len();
    let roll = Roll::default();
    let result: trio::Result<()> = crate::builder(orders).run(async {
        let mut others = Vec::new();
        let begin = open_nursery(async |nursery| {
            for (near, far) in pairs {
                others.push(far);
                let near = TcpStream::from_descriptor(Descriptor::from_socket(near.into())?);
                let roll = roll.clone();
                nursery.start_soon(async move {
                    roll.here();
                    near.receive().await?;
                    panic!("nothing was sent");
                });
            }
            roll.complete(count, sleep).await;
            let begin = Some(Instant::now());
            nursery.cancel_scope().cancel("enough");
            Ok(begin)
        });
        let begin = begin.await?.expect("the body came to its end");
        kit::storm_over(&trio::backend().to_string(), count, begin);
        Ok(())
    });
    result.expect("nothing fails");
}
