//! A server and its clients in worlds in which everything that can go wrong does.
//!
//! Every byte is checked, under many seeds; the same seed makes the same trace.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::{Either, select};
use trio::net::{Server, TcpStream, connect_tcp, serve_listeners};
use trio::testing::{Errno, Fault, Faults, Kind, Rule, Simulation};
use trio::{Builder, Error, Result, checkpoint, fail_after, move_on_after, open_nursery, sleep};

use crate::network::{listen, receive_to_end, seeds};

/// The random choices of a test, separate so that the world's choices do not depend on them.
struct Choices(Cell<u64>);

impl Choices {
    fn new(seed: u64) -> Self {
        Self(Cell::new(
            seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15),
        ))
    }

    /// A number below `end`: xorshift64*, by Vigna.
    fn below(&self, end: usize) -> usize {
        let mut state = self.0.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.0.set(state);
        let mixed = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(mixed).expect("it has 31 bits") % end
    }

    /// Some bytes, up to a few thousand.
    fn bytes(&self) -> Vec<u8> {
        let count = self.below(1 << self.below(13));
        let first = self.below(256);
        (first..first + count)
            .map(|n| (n * 7 % 251) as u8)
            .collect()
    }
}

async fn echo(stream: TcpStream) -> Result<()> {
    while let Some(data) = stream.receive().await? {
        stream.send_all(data).await?;
    }
    Ok(())
}

/// Sends pieces as `choices` decide, and receives them by `receive`, at the same time.
async fn visit<F>(address: SocketAddr, choices: &Choices, receive: F) -> Result<()>
where
    F: AsyncFnOnce(&TcpStream) -> Result<Vec<u8>>,
{
    let pieces: Vec<Vec<u8>> = (0..1 + choices.below(4)).map(|_| choices.bytes()).collect();
    let client = connect_tcp(address).await?;
    let (stream, sent) = (&client, &pieces);
    let received = open_nursery(async |nursery| {
        nursery.start_soon(async move {
            for (index, piece) in sent.iter().enumerate() {
                match index % 2 {
                    0 => stream.send_all(piece).await?,
                    _ => stream.send_all(piece.clone()).await?,
                }
                sleep(Duration::from_millis(1)).await?;
            }
            stream.send_eof().await
        });
        receive(stream).await
    })
    .await?;
    assert!(
        received == pieces.concat(),
        "bytes were lost, or came changed"
    );
    Ok(())
}

/// Receives up to the end, but gives up half-way again and again: by a deadline, and by dropping
/// the future.
async fn receive_fitfully(stream: &TcpStream, choices: &Choices) -> Result<Vec<u8>> {
    let mut received = Vec::new();
    let mut small = [0; 100];
    loop {
        let more = match choices.below(4) {
            0 => stream.receive().await?.map(|data| data.to_vec()),
            1 => {
                let patience = Duration::from_micros(choices.below(3000) as u64);
                match move_on_after(patience, stream.receive()).await? {
                    Some(data) => data.map(|data| data.to_vec()),
                    None => Some(Vec::new()),
                }
            }
            2 => {
                let receive = Box::pin(stream.receive());
                let turns = choices.below(6);
                let other = Box::pin(async move {
                    for _ in 0..turns {
                        checkpoint().await?;
                    }
                    Ok::<(), Error>(())
                });
                match select(receive, other).await {
                    Either::Left((data, _)) => data?.map(|data| data.to_vec()),
                    Either::Right((passed, _)) => passed.map(|()| Some(Vec::new()))?,
                }
            }
            _ => {
                let end = 1 + choices.below(small.len());
                match stream.receive_some(&mut small[..end]).await? {
                    0 => None,
                    count => Some(small[..count].to_vec()),
                }
            }
        };
        match more {
            Some(more) => received.extend(more),
            None => return Ok(received),
        }
    }
}

/// Runs an echo server and twenty clients in `world`, which receive in one go or fitfully.
fn serve_twenty(world: &Simulation, seed: u64, fitfully: bool) {
    let body = async {
        let (listener, address) = listen().await?;
        open_nursery(async |nursery| {
            nursery.start_soon(serve_listeners(echo, vec![listener]));
            open_nursery(async |clients| {
                for number in 0..20 {
                    clients.start_soon(async move {
                        let choices = Choices::new(seed.wrapping_mul(100).wrapping_add(number));
                        visit(address, &choices, async |stream| match fitfully {
                            false => receive_to_end(stream).await,
                            true => receive_fitfully(stream, &choices).await,
                        })
                        .await
                    });
                }
                Ok(())
            })
            .await?;
            nursery.cancel_scope().cancel("everybody has been served");
            Ok(())
        })
        .await
    };
    let builder = Builder::new().simulation(world.clone()).seed(seed);
    // An hour is more than all delays together: whatever is not done by then hangs.
    let result = builder.run(fail_after(Duration::from_secs(3600), body));
    if let Err(error) = result {
        panic!("seed {seed}: {error:?}");
    }
    assert_eq!(
        world.open_sockets(),
        0,
        "seed {seed}: a socket was left open"
    );
}

/// A world with the trouble of `faults`, and small in everything that can be full.
fn world(seed: u64, faults: Faults) -> Simulation {
    Simulation::new(seed)
        .faults(faults)
        .latency(Duration::ZERO..=Duration::from_millis(5))
        .buffer_size(3000)
        .block_size(1024)
        .queue_entries(4)
}

#[test]
fn an_echo_server_in_chaos_gives_back_every_byte_under_every_seed() {
    for seed in seeds(200) {
        serve_twenty(&world(seed, Faults::chaos()), seed, false);
    }
}

#[test]
fn receives_given_up_in_chaos_lose_no_byte_under_any_seed() {
    for seed in seeds(200) {
        serve_twenty(&world(seed, Faults::chaos()), seed, true);
    }
}

#[test]
fn accepts_that_fail_for_want_of_room_lose_no_connection_under_any_seed() {
    for seed in seeds(50) {
        let world = world(seed, Faults::chaos());
        let body = async {
            let (listener, address) = listen().await?;
            for nth in 1..10 {
                let fault = Fault::Fail(Errno::TooManyFiles);
                world.inject(Rule::nth(nth, Kind::Accept, fault));
            }
            let overloads = Cell::new(0);
            let counted = &overloads;
            open_nursery(async |nursery| {
                let server = Server::new(echo).on_overload(|_| counted.set(counted.get() + 1));
                nursery.start_soon(server.serve(vec![listener]));
                open_nursery(async |clients| {
                    for number in 0..5 {
                        clients.start_soon(async move {
                            let choices = Choices::new(number);
                            visit(address, &choices, receive_to_end).await
                        });
                    }
                    Ok(())
                })
                .await?;
                nursery.cancel_scope().cancel("everybody has been served");
                Ok(())
            })
            .await?;
            assert!(overloads.get() >= 9, "seed {seed}: {}", overloads.get());
            Ok(())
        };
        let builder = Builder::new().simulation(world.clone()).seed(seed);
        let result = builder.run(fail_after(Duration::from_secs(3600), body));
        if let Err(error) = result {
            panic!("seed {seed}: {error:?}");
        }
        assert_eq!(
            world.open_sockets(),
            0,
            "seed {seed}: a socket was left open"
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_does_not() {
    let print = |seed| {
        let world = world(seed, Faults::chaos());
        serve_twenty(&world, seed, true);
        (world.fingerprint(), world.trace())
    };
    for seed in seeds(5) {
        let (once, trace) = print(seed);
        let (again, same) = print(seed);
        assert_eq!(trace, same, "seed {seed}");
        assert_eq!(once, again, "seed {seed}");
        assert_ne!(
            once,
            print(seed.wrapping_add(1)).0,
            "seed {seed} and the next"
        );
    }
}

#[test]
fn a_storm_breaks_connections_and_not_the_server_under_any_seed() {
    let (broken, served) = (Cell::new(0), Cell::new(0));
    for seed in seeds(100) {
        let world = world(seed, Faults::storm());
        let failures = RefCell::new(Vec::new());
        let collected = &failures;
        let body = async {
            let (listener, address) = listen().await?;
            open_nursery(async |nursery| {
                let server = Server::new(echo).on_overload(|_| {}).on_error(|error| {
                    collected.borrow_mut().push(error);
                    Ok(())
                });
                nursery.start_soon(server.serve(vec![listener]));
                open_nursery(async |clients| {
                    for number in 0..20 {
                        let (broken, served) = (&broken, &served);
                        clients.start_soon(async move {
                            // A connection that was lost in the queue may never learn of it.
                            let choices = Choices::new(number);
                            let visit = visit(address, &choices, receive_to_end);
                            let count = match fail_after(Duration::from_secs(60), visit).await {
                                Ok(()) => served,
                                Err(_) => broken,
                            };
                            count.set(count.get() + 1);
                            Ok(())
                        });
                    }
                    Ok(())
                })
                .await?;
                nursery.cancel_scope().cancel("the storm is over");
                Ok(())
            })
            .await
        };
        let builder = Builder::new().simulation(world.clone()).seed(seed);
        if let Err(error) = builder.run(body) {
            panic!("seed {seed}: {error:?}");
        }
        for error in failures.take() {
            assert!(error.is::<trio::BrokenResource>(), "seed {seed}: {error:?}");
        }
        assert_eq!(
            world.open_sockets(),
            0,
            "seed {seed}: a socket was left open"
        );
    }
    assert!(broken.get() > 0, "the storm was none");
    assert!(
        served.get() > broken.get(),
        "{} of {}",
        broken.get(),
        served.get()
    );
}
