//! Shared by all tests: the same body on every driver, and names for what they look at.

use std::future::{Future, poll_fn};
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use trio::net::{TcpStream, connect_tcp, open_tcp_listeners};
use trio::testing::Simulation;
use trio::{Backend, Builder, Error, Result};

/// A builder for each driver, with its name.
pub(crate) fn builders() -> Vec<(&'static str, Builder)> {
    vec![
        ("io_uring", Builder::new().backend(Backend::IoUring)),
        ("polling", Builder::new().backend(Backend::Polling)),
        ("simulation", Builder::new().simulation(Simulation::new(1))),
    ]
}

/// Runs what `body` returns once on each driver, and says which one failed.
pub(crate) fn on_every_driver<F>(body: impl Fn() -> F)
where
    F: Future<Output = Result<()>>,
{
    for (name, builder) in builders() {
        if let Err(error) = builder.run(body()) {
            panic!("on {name}: {error:?}");
        }
    }
}

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The shape of an error: groups in brackets, cancellations as that word, other leaves by their
/// text.
pub(crate) fn shape(error: &Error) -> String {
    match error.as_group() {
        Some(members) => {
            let members: Vec<String> = members.iter().map(shape).collect();
            format!("[{}]", members.join(" "))
        }
        None if error.as_cancelled().is_some() => "cancelled".to_owned(),
        None => error.to_string(),
    }
}

/// The shape of the error of a result, which must have one.
#[track_caller]
pub(crate) fn failure<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => panic!("this must fail"),
        Err(error) => shape(&error),
    }
}

/// Polls `future` once, which must not be ready: from then on it waits.
pub(crate) async fn begin<F: Future + Unpin>(future: &mut F) {
    let polled = poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context))).await;
    assert!(polled.is_pending(), "this must wait");
}

/// A plain error for tests.
pub(crate) fn oops<T>(what: &str) -> Result<T> {
    Err(Error::msg(what))
}

/// A thread that belongs to no run.
#[expect(
    clippy::disallowed_methods,
    reason = "what other threads may do is shown by one that no run has begun"
)]
pub(crate) fn foreign_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::spawn(work)
}

/// Both ends of a connection.
pub(crate) async fn connection() -> Result<(TcpStream, TcpStream)> {
    let listeners = open_tcp_listeners((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listeners[0].local_address()?;
    let mut accepted = None;
    let mut connected = None;
    trio::open_nursery(async |nursery| {
        nursery.start_soon(async {
            accepted = Some(listeners[0].accept().await?);
            Ok(())
        });
        connected = Some(connect_tcp(address).await?);
        Ok(())
    })
    .await?;
    Ok((
        connected.expect("the nursery has ended well"),
        accepted.expect("the nursery has ended well"),
    ))
}
