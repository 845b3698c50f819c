//! The main job in miniature: an echo server and its clients in one run.

use std::net::Ipv4Addr;

use trio::net::{TcpStream, connect_tcp, open_tcp_listeners, serve_listeners};
use trio::{Result, open_nursery};

use crate::support::on_every_driver;

async fn echo(stream: TcpStream) -> Result<()> {
    while let Some(data) = stream.receive().await? {
        stream.send_all(data).await?;
    }
    Ok(())
}

#[test]
fn an_echo_server_gives_back_every_byte_after_a_half_close() {
    on_every_driver(|| async {
        let listeners = open_tcp_listeners((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listeners[0].local_address()?;
        open_nursery(async |nursery| {
            nursery.start_soon(serve_listeners(echo, listeners));
            for length in [0, 1, 5000, 3_000_000] {
                let sent: Vec<u8> = (0..=250).cycle().take(length).collect();
                let stream = connect_tcp(address).await?;
                let mut received = Vec::new();
                open_nursery(async |both| {
                    both.start_soon(async {
                        stream.send_all(&sent).await?;
                        stream.send_eof().await
                    });
                    while let Some(data) = stream.receive().await? {
                        received.extend_from_slice(&data);
                    }
                    Ok(())
                })
                .await?;
                assert!(received == sent, "{length} bytes came back changed");
            }
            nursery.cancel_scope().cancel("done");
            Ok(())
        })
        .await
    });
}
