//! The servers on smol: a `LocalExecutor` a worker, and async-io's own reactor.

#![forbid(unsafe_code)]

mod micro;
mod storm;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use kit::{BUFFER, Connection, Next, Orders, Seat};
use smol::net::TcpStream;
use smol::{Async, LocalExecutor};

fn main() {
    let orders = Orders::from_arguments();
    match orders.job() {
        "micro" => return micro::run(&orders),
        "storm" => return storm::run(&orders),
        _ => {}
    }
    kit::run_workers(&orders, "epoll", |seat| {
        let executor = LocalExecutor::new();
        let result = smol::block_on(executor.run(serve(&executor, &seat)));
        result.expect("a server");
    });
}

async fn serve(executor: &LocalExecutor<'_>, seat: &Seat) -> std::io::Result<()> {
    let listener = Async::new(seat.listen()?)?;
    let service = seat.listening();
    loop {
        let (stream, _) = listener.accept().await?;
        executor
            .spawn(handle(stream.into(), service.accept()))
            .detach();
    }
}

async fn handle(mut stream: TcpStream, mut connection: Connection) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        if connection.received(count) == Next::Reply {
            stream.write_all(&buffer[..count]).await?;
        }
        if connection.is_over() {
            return Ok(());
        }
    }
}
