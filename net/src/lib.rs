//! TCP: streams, listeners, and servers made of them. Knows no TLS.

#![forbid(unsafe_code)]

mod bind;
mod serve;
mod tcp;
pub mod testing;

pub use bind::Bind;
pub use serve::{Server, serve_listeners, serve_tcp};
pub use tcp::{
    Receive, ReceiveSome, SendAll, TcpListener, TcpStream, connect_tcp, open_tcp_listeners,
};
