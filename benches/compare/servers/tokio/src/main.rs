//! The servers on tokio: one `current_thread` runtime a worker.

#![forbid(unsafe_code)]

mod micro;
mod storm;

use kit::{BUFFER, Connection, Next, Orders, Seat};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn main() {
    let orders = Orders::from_arguments();
    match orders.job() {
        "micro" => return micro::run(&orders),
        "storm" => return storm::run(&orders),
        _ => {}
    }
    kit::run_workers(&orders, "epoll", |seat| {
        runtime().block_on(serve(&seat)).expect("a server");
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

async fn serve(seat: &Seat) -> std::io::Result<()> {
    let listener = TcpListener::from_std(seat.listen()?)?;
    let service = seat.listening();
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(handle(stream, service.accept()));
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
