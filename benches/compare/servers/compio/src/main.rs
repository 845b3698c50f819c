//! The servers on compio: one io_uring runtime a worker.

#![forbid(unsafe_code)]

mod micro;
mod storm;

use compio::BufResult;
use compio::driver::{DriverType, ProactorBuilder};
use compio::io::{AsyncRead, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream};
use compio::runtime::{Runtime, RuntimeBuilder};
use kit::{BUFFER, Connection, Next, Orders, Seat};

fn main() {
    let orders = Orders::from_arguments();
    match orders.job() {
        "micro" => return micro::run(&orders),
        "storm" => return storm::run(&orders),
        _ => {}
    }
    let backend = backend(&runtime());
    kit::run_workers(&orders, backend, |seat| {
        runtime().block_on(serve(&seat)).expect("a server");
    });
}

/// With the ring flags that a runtime of one thread wants, which compio leaves to its user.
fn runtime() -> Runtime {
    let mut proactor = ProactorBuilder::new();
    proactor
        .driver_type(DriverType::IoUring)
        .coop_taskrun(true)
        .taskrun_flag(true);
    RuntimeBuilder::new()
        .with_proactor(proactor)
        .build()
        .expect("a runtime")
}

fn backend(runtime: &Runtime) -> &'static str {
    match runtime.driver_type() {
        DriverType::IoUring => "io_uring",
        DriverType::Poll => "polling",
        _ => "another",
    }
}

async fn serve(seat: &Seat) -> std::io::Result<()> {
    let listener = TcpListener::from_std(seat.listen()?)?;
    let service = seat.listening();
    loop {
        let (stream, _) = listener.accept().await?;
        compio::runtime::spawn(handle(stream, service.accept())).detach();
    }
}

async fn handle(mut stream: TcpStream, mut connection: Connection) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        let result;
        BufResult(result, buffer) = stream.read(buffer).await;
        let count = result?;
        if count == 0 {
            return Ok(());
        }
        if connection.received(count) == Next::Reply {
            let result;
            BufResult(result, buffer) = stream.write_all(buffer).await;
            result?;
        }
        if connection.is_over() {
            return Ok(());
        }
    }
}
