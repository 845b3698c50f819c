//! What sockets hold while nobody looks at them, and the orders in which they may go.

use std::cell::RefCell;
use std::thread_local;

use trio::net::{TcpListener, TcpStream, connect_tcp};
use trio::testing::wait_all_tasks_blocked;
use trio::{Builder, Result, current_statistics, open_nursery};

use crate::network::{listen, pair, receive_exactly};
use crate::support::{begin, builders, secs};

/// A stream that is received ahead, and left after that.
async fn leave_in_the_middle(streams: &mut Vec<(TcpStream, TcpStream)>) -> Result<impl Sized + use<>> {
    const BLOCK: usize = 16 * 1024;
    let (client, server) = pair().await?;
    // More than is received ahead: ten blocks.
    client.send_all(vec![7; 10 * BLOCK]).await?;
    let mut last = None;
    for _ in 0..3 {
        drop(last.take());
        last = server.receive().await?;
    }
    streams.push((client, server));
    Ok(last)
}
