//! The memory that sockets hold while they are idle, and the orders in which things may be dropped.

use std::cell::RefCell;
use std::future::Future;

use trio::lowlevel::driver_statistics;
use trio::net::{TcpListener, TcpStream, connect_tcp};
use trio::testing::wait_all_tasks_blocked;
use trio::{Result, checkpoint, open_nursery, sleep_forever};

use crate::network::{listen, pair, receive_exactly, receive_to_end};
use crate::support::{begin, builders, on_every_driver, secs};

const BLOCK: usize = 16 * 1024;

/// Sends twelve blocks, and receives four times: a stream whose reader then stops reading.
async fn begin_to_read(client: &TcpStream, server: &TcpStream) -> Result<impl Sized + use<>> {
    let mut last = None;
    open_nursery(async |nursery| {
        nursery.start_soon(client.send_all(vec![7; 12 * BLOCK]));
        wait_all_tasks_blocked(secs(0)).await?;
        for _ in 0..4 {
            drop(last.take());
            last = server.receive().await?;
        }
        Ok(())
    })
    .await?;
    Ok(last)
}

#[test]
fn d10_streams_that_are_not_read_on_hold_a_bounded_number_of_blocks() {
    const STREAMS: usize = 250;
    for (name, builder) in builders()
        .into_iter()
        .filter(|(name, _)| *name != "simulation")
    {
        let run: Result<()> = builder.run(async {
            let mut streams = Vec::new();
            let mut held = Vec::new();
            for _ in 0..STREAMS {
                let (client, server) = pair().await?;
                held.push(begin_to_read(&client, &server).await?);
                streams.push((client, server));
            }
            wait_all_tasks_blocked(secs(0)).await?;
            let ahead = driver_statistics().blocks_leased - held.len();
            assert!(ahead > 100, "on {name}: nothing is received ahead: {ahead}");
            assert!(ahead <= 512 + 8, "on {name}: {ahead} blocks");
            // Nothing of this is lost.
            drop(held);
            for (client, server) in streams {
                client.send_eof().await?;
                let rest = receive_to_end(&server).await?;
                assert!(rest.len() >= 7 * BLOCK && rest.iter().all(|byte| *byte == 7));
            }
            assert_eq!(driver_statistics().blocks_leased, 0, "on {name}");
            Ok(())
        });
        run.unwrap_or_else(|error| panic!("on {name}: {error:?}"));
    }
}

/// A listener, the last connection that it has accepted, its other side, and a connection that
/// waits to be accepted.
struct Family {
    listener: Option<TcpListener>,
    server: Option<TcpStream>,
    client: Option<TcpStream>,
    queued: Option<TcpStream>,
}

impl Family {
    async fn open(accepts: u32) -> Result<Self> {
        let (listener, address) = listen().await?;
        let (mut client, mut server) = (None, None);
        for _ in 0..accepts {
            let there = connect_tcp(address).await?;
            let here = listener.accept().await?;
            // Connections that have received before may be served differently, and so may a listener
            // that has accepted before.
            for _ in 0..3 {
                there.send_all(b"x").await?;
                receive_exactly(&here, 1).await?;
            }
            (client, server) = (Some(there), Some(here));
        }
        let queued = Some(connect_tcp(address).await?);
        let listener = Some(listener);
        Ok(Self {
            listener,
            server,
            client,
            queued,
        })
    }

    /// Drops one of them; the other side notices.
    async fn drop_member(&mut self, member: usize) -> Result<()> {
        match member {
            0 => {
                drop(self.listener.take());
                if let Some(queued) = &self.queued {
                    // The end of file, or a reset.
                    assert!(!matches!(queued.receive().await, Ok(Some(_))));
                }
                if let (Some(client), Some(server)) = (&self.client, &self.server) {
                    client.send_all(b"still").await?;
                    receive_exactly(server, 5).await?;
                }
            }
            1 => {
                drop(self.server.take());
                if let Some(client) = &self.client {
                    assert!(receive_to_end(client).await?.is_empty());
                }
            }
            2 => {
                drop(self.client.take());
                if let Some(server) = &self.server {
                    assert!(receive_to_end(server).await?.is_empty());
                }
            }
            _ => drop(self.queued.take()),
        }
        checkpoint().await
    }
}

/// Every order of four.
fn orders() -> Vec<[usize; 4]> {
    let all = (0..256).map(|n| [n % 4, n / 4 % 4, n / 16 % 4, n / 64]);
    let each_once = all.filter(|order| (0..4).all(|member| order.contains(&member)));
    each_once.collect()
}

#[test]
fn d4_a_listener_and_its_connections_may_go_in_any_order() {
    assert_eq!(orders().len(), 24);
    on_every_driver(|| async {
        for accepts in [1, 4] {
            for order in orders() {
                let mut family = Family::open(accepts).await?;
                for member in order {
                    family.drop_member(member).await?;
                }
            }
        }
        Ok(())
    });
}

/// A nursery in which each child waits in a different operation on streams that it owns.
fn in_flight(streams: Vec<(TcpStream, TcpListener)>) -> impl Future<Output = Result<()>> {
    open_nursery(async move |nursery| {
        for (stream, listener) in streams {
            nursery.start_soon(async move {
                let mut receive = Box::pin(stream.receive());
                begin(&mut receive).await;
                let mut accept = Box::pin(listener.accept());
                begin(&mut accept).await;
                stream.send_all(vec![0; 16 << 20]).await
            });
        }
        sleep_forever().await
    })
}

#[test]
fn d7_a_nursery_that_is_dropped_with_operations_in_flight_takes_its_sockets_along() {
    on_every_driver(|| async {
        let peers = RefCell::new(Vec::new());
        let mut streams = Vec::new();
        for _ in 0..5 {
            let (client, server) = pair().await?;
            let (listener, _) = listen().await?;
            peers.borrow_mut().push(client);
            streams.push((server, listener));
        }
        let mut nursery = Box::pin(in_flight(streams));
        begin(&mut nursery).await;
        checkpoint().await?;
        begin(&mut nursery).await;
        drop(nursery);
        // Each of them sees what was sent, and then the end.
        for peer in peers.take() {
            let received = receive_to_end(&peer).await?;
            assert!(received.len() < 16 << 20);
        }
        Ok(())
    });
}
