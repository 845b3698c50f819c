//! The servers on trio, through the public interface like any user's: one run a worker.

#![forbid(unsafe_code)]

mod micro;
mod storm;

use std::net::Ipv4Addr;

use kit::{BACKLOG, BUFFER, Connection, Next, Orders, Seat};
use trio::net::{Server, TcpListener, TcpStream};
use trio::{Backend, Builder, Result};

fn main() {
    let orders = Orders::from_arguments();
    if !matches!(orders.job(), "echo" | "once" | "sink") && orders.text("receive") == "slice" {
        orders.refuse("nothing is received into a slice");
    }
    match orders.job() {
        "micro" => return micro::run(&orders),
        "storm" => return storm::run(&orders),
        _ => {}
    }
    let backend = builder(&orders).run(async { trio::backend() });
    let told = orders.clone();
    kit::run_workers(&told, &backend.to_string(), move |seat| {
        let error = builder(&orders).run(serve(&orders, &seat));
        panic!("the server ended: {error:?}");
    });
}

fn builder(orders: &Orders) -> Builder {
    match orders.text("backend") {
        "io_uring" => Builder::new().backend(Backend::IoUring),
        "polling" => Builder::new().backend(Backend::Polling),
        _ => Builder::new(),
    }
}

async fn serve(orders: &Orders, seat: &Seat) -> Result<()> {
    let backlog = BACKLOG.unsigned_abs();
    let listeners =
        TcpListener::open_all((Ipv4Addr::LOCALHOST, seat.port()).into(), backlog, true)?;
    let service = seat.listening();
    let quiet = |_| Ok(());
    if orders.text("receive") == "slice" {
        let handler = |stream| into_slice(stream, service.accept());
        Server::new(handler).on_error(quiet).serve(listeners).await
    } else {
        let handler = |stream| by_lease(stream, service.accept());
        Server::new(handler).on_error(quiet).serve(listeners).await
    }
}

async fn by_lease(stream: TcpStream, mut connection: Connection) -> Result<()> {
    while let Some(data) = stream.receive().await? {
        if connection.received(data.len()) == Next::Reply {
            stream.send_all(data).await?;
        }
        if connection.is_over() {
            break;
        }
    }
    Ok(())
}

async fn into_slice(stream: TcpStream, mut connection: Connection) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = stream.receive_some(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        if connection.received(count) == Next::Reply {
            stream.send_all(&buffer[..count]).await?;
        }
        if connection.is_over() {
            return Ok(());
        }
    }
}
