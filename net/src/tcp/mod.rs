//! TCP streams and listeners.

mod listener;
mod send;
mod stream;

pub use listener::{TcpListener, open_tcp_listeners};
pub use send::SendAll;
pub use stream::{Receive, ReceiveSome, TcpStream, connect_tcp};
