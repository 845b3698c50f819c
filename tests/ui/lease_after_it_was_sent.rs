//! A lease that is sent belongs to the operation: the kernel may still read it.

use trio::net::TcpStream;

async fn echo(stream: TcpStream) -> trio::Result<()> {
    while let Some(mut data) = stream.receive().await? {
        stream.send_all(data).await?;
        data[0] = 0;
    }
    Ok(())
}

fn main() {
    let _ = echo;
}
