//! The cancel storm on trio: the scope of a nursery is cancelled, and the nursery waits for all.

use std::time::Instant;

use kit::Orders;
use trio::lowlevel::Descriptor;
use trio::net::TcpStream;
use trio::{checkpoint, open_nursery};

pub(crate) fn run(orders: &Orders) {
    let pairs = kit::pairs(orders).expect("sockets");
    let count = pairs.len();
    let result: trio::Result<()> = crate::builder(orders).run(async {
        let mut others = Vec::new();
        let begin = open_nursery(async |nursery| {
            for (near, far) in pairs {
                others.push(far);
                let near = TcpStream::from_descriptor(Descriptor::from_socket(near.into())?);
                nursery.start_soon(async move {
                    near.receive().await?;
                    panic!("nothing was sent");
                });
            }
            checkpoint().await?;
            checkpoint().await?;
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
