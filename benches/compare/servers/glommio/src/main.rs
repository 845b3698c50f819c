//! The servers on glommio: one executor a worker. It may not start under a small memlock limit.

#![forbid(unsafe_code)]

mod micro;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};
use kit::{BUFFER, Connection, Next, Orders, Seat};

fn main() {
    let orders = Orders::from_arguments();
    if orders.job() == "storm" {
        orders.refuse("no way to cancel receives and to see them end");
    }
    if orders.job() == "micro" {
        return micro::run(&orders);
    }
    kit::run_workers(&orders, "io_uring", |seat| {
        executor().run(serve(&seat)).expect("a server");
    });
}

fn executor() -> LocalExecutor {
    let made = LocalExecutorBuilder::new(Placement::Unbound).make();
    made.unwrap_or_else(|error| panic!("no executor: {error}"))
}

async fn serve(seat: &Seat) -> glommio::Result<(), ()> {
    // It cannot use an existing listener; its own shares the port as well, with a queue length of
    // its choice.
    let listener = TcpListener::bind(("127.0.0.1", seat.port()))?;
    let service = seat.listening();
    loop {
        let stream = listener.accept().await?;
        stream.set_nodelay(true)?;
        glommio::spawn_local(handle(stream, service.accept())).detach();
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
