//! The buffer of a receive is borrowed until the receive has ended.

use trio::net::TcpStream;

async fn look(stream: TcpStream) -> trio::Result<()> {
    let mut buffer = [0; 64];
    let receive = stream.receive_some(&mut buffer);
    println!("{buffer:?}");
    receive.await?;
    Ok(())
}

fn main() {
    let _ = look;
}
