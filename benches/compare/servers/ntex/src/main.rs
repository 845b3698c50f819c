//! The servers on ntex, with its own server: a thread that accepts, and its io_uring workers.

#![forbid(unsafe_code)]

mod micro;

use kit::{BUFFER, Connection, Next, Orders};
use ntex::codec::BytesCodec;
use ntex::io::{Io, IoConfig};
use ntex::service::cfg::SharedCfg;

fn main() {
    let orders = Orders::from_arguments();
    if orders.job() == "storm" {
        orders.refuse("no way to cancel receives and to see them end");
    }
    if orders.job() == "micro" {
        return micro::run(&orders);
    }
    let system = ntex::rt::System::new("server", ntex::rt::DefaultRuntime);
    let result: std::io::Result<()> = system.block_on(async move {
        let (_reserved, seat) = kit::reserve(&orders, "io_uring")?;
        let listener = seat.listen()?;
        let buffers = IoConfig::new().set_read_buf(BUFFER, 1024, 16);
        ntex::server::build()
            .workers(orders.number("workers", 1))
            .disable_signals()
            .listen("server", listener, async move |_| {
                let service = seat.listening();
                ntex::fn_service(move |io: Io| handle(io, service.accept()))
            })?
            .config("server", SharedCfg::new("server").add(buffers))
            .run()
            .await
    });
    result.expect("a server");
}

async fn handle(io: Io, mut connection: Connection) -> std::io::Result<()> {
    while let Ok(Some(data)) = io.recv(&BytesCodec).await {
        if connection.received(data.len()) == Next::Reply
            && io.send(data, &BytesCodec).await.is_err()
        {
            break;
        }
        if connection.is_over() {
            break;
        }
    }
    Ok(())
}
