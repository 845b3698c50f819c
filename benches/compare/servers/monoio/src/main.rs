//! The servers on monoio: one io_uring runtime a worker.

#![forbid(unsafe_code)]

mod micro;
mod storm;

use kit::{BUFFER, Connection, Next, Orders, Seat};
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::time::TimeDriver;
use monoio::{IoUringDriver, Runtime, RuntimeBuilder};

fn main() {
    let orders = Orders::from_arguments();
    match orders.job() {
        "micro" => return micro::run(&orders),
        "storm" => return storm::run(&orders),
        _ => {}
    }
    kit::run_workers(&orders, "io_uring", |seat| {
        runtime().block_on(serve(&seat)).expect("a server");
    });
}

/// Not the `FusionDriver`, which does not say which driver it became.
fn runtime() -> Runtime<TimeDriver<IoUringDriver>> {
    RuntimeBuilder::<IoUringDriver>::new()
        .enable_timer()
        .build()
        .expect("a runtime")
}

async fn serve(seat: &Seat) -> std::io::Result<()> {
    let listener = TcpListener::from_std(seat.listen()?)?;
    let service = seat.listening();
    loop {
        let (stream, _) = listener.accept().await?;
        monoio::spawn(handle(stream, service.accept()));
    }
}

async fn handle(mut stream: TcpStream, mut connection: Connection) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        let result;
        (result, buffer) = stream.read(buffer).await;
        let count = result?;
        if count == 0 {
            return Ok(());
        }
        if connection.received(count) == Next::Reply {
            let result;
            (result, buffer) = stream.write_all(buffer).await;
            result?;
        }
        if connection.is_over() {
            return Ok(());
        }
    }
}
