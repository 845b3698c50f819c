//! Shared by the tests of the network: connections, and ways to be in the middle of an operation.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use trio::lowlevel::{Connect, Descriptor, Family, driver_statistics, socket, submit};
use trio::net::{TcpListener, TcpStream, connect_tcp, open_tcp_listeners};
use trio::testing::{Simulation, wait_all_tasks_blocked};
use trio::{Builder, CancelScope, Result, checkpoint, open_nursery};

/// A listener on a free port, and its address.
pub(crate) async fn listen() -> Result<(TcpListener, SocketAddr)> {
    let listener = open_tcp_listeners((Ipv4Addr::LOCALHOST, 0))
        .await?
        .remove(0);
    let address = listener.local_address()?;
    Ok((listener, address))
}

/// Both ends of a connection: the one that connected, and the one that was accepted.
pub(crate) async fn pair() -> Result<(TcpStream, TcpStream)> {
    let (listener, address) = listen().await?;
    let client = connect_tcp(address).await?;
    let server = listener.accept().await?;
    Ok((client, server))
}

/// The same, with as much sent by the first as there is room for, and the number of those bytes.
///
/// There is little room, always the same amount: left to itself, a system may add room at any
/// moment. A busy system acknowledges late, and a fifth of a second later probes whether there is
/// room for a part of what waits; so the connection counts as full once it has been so for longer
/// than that.
pub(crate) async fn clogged_pair() -> Result<(TcpStream, TcpStream, usize)> {
    let (client, server) = narrow_pair().await?;
    let mut clogged = 0;
    let mut full = 0;
    while full < LOOKS {
        let before = clogged;
        while let Ok(count) = socket::try_send(&client, &[0; 1024]) {
            clogged += count;
        }
        full = if clogged == before { full + 1 } else { 0 };
        wait_all_tasks_blocked(BETWEEN_LOOKS).await?;
    }
    Ok((TcpStream::from_descriptor(client), server, clogged))
}

/// Both ends of a connection with as much sent both ways as there is room for.
pub(crate) async fn clogged_both_ways() -> Result<(TcpStream, TcpStream)> {
    let (client, server) = narrow_pair().await?;
    let client = TcpStream::from_descriptor(client);
    let sent = &Cell::new(0);
    let mut full = 0;
    while full < LOOKS {
        let before = sent.get();
        // Traffic one way acknowledges what went the other way, and makes room there.
        for stream in [&client, &server] {
            cancelled_when_blocked::<()>(async {
                loop {
                    stream.send_all(&[0; 1024]).await?;
                    sent.set(sent.get() + 1);
                }
            })
            .await?;
        }
        full = if sent.get() == before { full + 1 } else { 0 };
        wait_all_tasks_blocked(BETWEEN_LOOKS).await?;
    }
    Ok((client, server))
}

async fn narrow_pair() -> Result<(Descriptor, TcpStream)> {
    let listening = narrow_socket()?;
    socket::bind(&listening, &(Ipv4Addr::LOCALHOST, 0).into(), false)?;
    socket::listen(&listening, 1)?;
    let address = socket::local_address(&listening)?;
    let listener = TcpListener::from_descriptor(listening);
    let connected = submit(Connect::new(narrow_socket()?, address)).await?;
    let client = connected.into_connected()?;
    Ok((client, listener.accept().await?))
}

fn narrow_socket() -> Result<Descriptor> {
    let descriptor = socket::stream(Family::V4)?;
    // The simulated network is narrow by itself.
    if let Ok(socket) = descriptor.socket() {
        socket.set_send_buffer_size(NARROW)?;
        socket.set_recv_buffer_size(NARROW)?;
    }
    Ok(descriptor)
}

/// How often a connection is checked before it counts as full, and the pause between two checks.
const LOOKS: u32 = 15;
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Bytes of room on either side, which the system may double.
const NARROW: usize = 64 * 1024;

/// Runs `body` in `world`, and returns its value once everything has ended in it.
pub(crate) fn simulate<F, T>(world: &Simulation, body: F) -> T
where
    F: Future<Output = Result<T>>,
{
    let builder = Builder::new().simulation(world.clone());
    builder
        .run(body)
        .unwrap_or_else(|error| panic!("{error:?}"))
}

/// Operations that have been submitted but not completed.
pub(crate) fn in_flight() -> u64 {
    let statistics = driver_statistics();
    statistics.submitted - statistics.completed
}

/// Runs `operation` in a scope that is cancelled once no task has anything left to do, and returns
/// the outcome.
pub(crate) async fn cancelled_when_blocked<T>(
    operation: impl Future<Output = Result<T>>,
) -> Result<Option<T>> {
    let scope = CancelScope::new();
    let result = RefCell::new(None);
    let (inside, outcome) = (&scope, &result);
    open_nursery(async |nursery| {
        nursery.start_soon(async move {
            *outcome.borrow_mut() = inside.enter(operation).await?;
            Ok(())
        });
        wait_all_tasks_blocked(Duration::ZERO).await?;
        inside.cancel("everybody waits");
        Ok(())
    })
    .await?;
    Ok(result.take())
}

/// Runs `operation` in a scope that is cancelled after the driver has reported its completion and
/// before its task runs again: the body is ready in every turn, and so runs before whatever a
/// completion makes ready. `kick` lets the operation complete, if it does not by itself.
///
/// Afterwards the scope is checked once more, and must be cancelled.
pub(crate) async fn cancelled_behind_completion<T>(
    operation: impl Future<Output = Result<T>>,
    kick: impl Future<Output = Result<()>>,
) -> Result<T> {
    let scope = CancelScope::new();
    let result = RefCell::new(None);
    let returned = Cell::new(false);
    let (inside, outcome, has_returned) = (&scope, &result, &returned);
    open_nursery(async |nursery| {
        let before = driver_statistics().completed;
        nursery.start_soon(async move {
            let work = async {
                *outcome.borrow_mut() = Some(operation.await);
                has_returned.set(true);
                checkpoint().await
            };
            let after = inside.enter(work).await?;
            assert!(after.is_none(), "the next checkpoint reports the cancel");
            Ok(())
        });
        kick.await?;
        for _ in 0..TURNS_MAX {
            if driver_statistics().completed > before {
                break;
            }
            checkpoint().await?;
        }
        assert!(!has_returned.get(), "the task has not run since");
        inside.cancel("a completion has been reported");
        Ok(())
    })
    .await?;
    assert!(scope.cancelled_caught());
    result.take().expect("the operation has ended")
}

/// Polls `future` for this many turns, and then drops it.
pub(crate) async fn dropped_after<T>(turns: usize, future: impl Future<Output = T>) -> Option<T> {
    let patience = async {
        for _ in 0..turns {
            // A cancelled test ends at its next operation.
            drop(checkpoint().await);
        }
    };
    match select(pin!(future), pin!(patience)).await {
        Either::Left((value, _)) => Some(value),
        Either::Right(_) => None,
    }
}

/// Everything up to the end of file.
pub(crate) async fn receive_to_end(stream: &TcpStream) -> Result<Vec<u8>> {
    let mut received = Vec::new();
    while let Some(data) = stream.receive().await? {
        received.extend_from_slice(&data);
    }
    Ok(received)
}

/// Exactly `count` bytes.
pub(crate) async fn receive_exactly(stream: &TcpStream, count: usize) -> Result<Vec<u8>> {
    let mut received = vec![0; count];
    let mut filled = 0;
    while filled < count {
        let more = stream.receive_some(&mut received[filled..]).await?;
        assert!(
            more > 0,
            "the end of file came after {filled} of {count} bytes"
        );
        filled += more;
    }
    Ok(received)
}

/// `count` bytes that show where they belong: no two places within 128 KiB look alike.
pub(crate) fn numbered(count: usize) -> Vec<u8> {
    let round: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_be_bytes).collect();
    let mut bytes = round.repeat(count.div_ceil(round.len()));
    bytes.truncate(count);
    bytes
}

/// The seeds of the test itself, and those from the environment.
pub(crate) fn seeds(own: u64) -> impl Iterator<Item = u64> {
    let outside = std::env::var("TRIO_SIM_SEEDS").unwrap_or_default();
    let more: Vec<u64> = outside
        .split(',')
        .filter(|text| !text.is_empty())
        .map(|text| {
            text.trim()
                .parse()
                .expect("TRIO_SIM_SEEDS holds numbers separated by commas")
        })
        .collect();
    (0..own).chain(more)
}

/// More turns than any completion of these tests takes.
const TURNS_MAX: usize = 1_000_000;
