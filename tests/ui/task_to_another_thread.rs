//! Tasks never change threads: a future that waits in this library stays where it is.

use trio::net::TcpStream;

async fn echo(stream: TcpStream) -> trio::Result<()> {
    while let Some(data) = stream.receive().await? {
        stream.send_all(data).await?;
    }
    Ok(())
}

fn elsewhere(stream: TcpStream) {
    std::thread::spawn(move || trio::run(echo(stream)));
}

fn main() {
    let _ = elsewhere;
}
