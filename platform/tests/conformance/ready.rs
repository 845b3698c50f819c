//! Readiness: said, and nothing taken.

use std::time::Duration;

use trio_platform::{Interest, Ready};

use crate::kit::{Kit, Pair, assert_cancelled};

pub(crate) fn readable_says_that_bytes_are_there_and_takes_none(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    let ready = kit.start(Ready::new(server.clone(), Interest::Readable));
    kit.run_for(Duration::from_millis(10));
    assert!(kit.report(ready).is_none(), "nothing is there");
    kit.send_all(&client, &b"x"[..]);
    kit.finish(ready).into_ready().unwrap();
    kit.expect_byte(&server, b'x');
}

pub(crate) fn readable_says_that_the_end_is_there(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    let ready = kit.start(Ready::new(server.clone(), Interest::Readable));
    kit.settle();
    drop(client);
    kit.finish(ready).into_ready().unwrap();
    assert_eq!(kit.receive(&server).unwrap().len(), 0);
}

pub(crate) fn readable_says_that_a_connection_is_there(kit: &mut Kit<'_>) {
    let (listener, address) = kit.listener();
    let ready = kit.start(Ready::new(listener.clone(), Interest::Readable));
    kit.settle();
    let client = kit.connect(address);
    kit.finish(ready).into_ready().unwrap();
    let server = kit.accept(&listener);
    drop((client, server));
}

pub(crate) fn a_fresh_connection_is_writable(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    let ready = kit.run(Ready::new(client, Interest::Writable));
    ready.into_ready().unwrap();
    drop(server);
}

pub(crate) fn a_wait_for_readiness_can_be_cancelled(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    let ready = kit.start(Ready::new(server.clone(), Interest::Readable));
    kit.settle();
    kit.driver.cancel(ready.key);
    assert_cancelled(&kit.finish(ready).into_ready());
    // And the next one works as if there had been none.
    let ready = kit.start(Ready::new(server.clone(), Interest::Readable));
    kit.send_all(&client, &b"x"[..]);
    kit.finish(ready).into_ready().unwrap();
    kit.expect_byte(&server, b'x');
}
