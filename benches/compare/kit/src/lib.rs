//! Shared by every server program of the comparison: its orders, its listener, its counters, its
//! reports, and the stopwatch of the micro workloads. Only the runtime differs.

#![forbid(unsafe_code)]

mod control;
mod meter;
mod orders;
mod report;
mod service;
mod storm;

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use control::announce;
pub use meter::{Meter, outcome};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
pub use orders::Orders;
pub use report::{Report, fields};
pub use service::{BUFFER, Connection, Next, Service};
use socket2::{Domain, Protocol, Socket, Type};
pub use storm::{Roll, pairs, storm_over};

/// Runs `worker` for each of `count` workers: the first one here, the others on threads. Each gets
/// a seat, which says on which port to listen, and which it notifies when it does.
pub fn run_workers(orders: &Orders, backend: &str, worker: impl Fn(Seat) + Clone + Send + 'static) {
    let (reserved, seat) = reserve(orders, backend).expect("a free port on the loopback");
    for _ in 1..orders.number("workers", 1) {
        let worker = worker.clone();
        let seat = seat.clone();
        std::thread::spawn(move || worker(seat));
    }
    worker(seat);
    drop(reserved);
}

/// Raises the limit of open files as far as this process may.
pub fn allow_open_files() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // This fails where it is forbidden; whoever needs the files will report it.
        setrlimit(Resource::RLIMIT_NOFILE, most, most).ok();
    }
}

/// A seat for all workers, for a runtime that starts them itself. The port is reserved for them as
/// long as the socket lives.
pub fn reserve(orders: &Orders, backend: &str) -> io::Result<(Socket, Seat)> {
    allow_open_files();
    let (reserved, port) = reserve_port()?;
    let count = orders.number("workers", 1);
    let seat = Seat {
        port,
        orders: orders.clone(),
        backend: backend.into(),
        missing: Arc::new(AtomicUsize::new(count)),
    };
    Ok((reserved, seat))
}

/// The place of one worker among all.
#[derive(Clone, Debug)]
pub struct Seat {
    port: u16,
    orders: Orders,
    backend: Arc<str>,
    /// How many workers do not listen yet.
    missing: Arc<AtomicUsize>,
}

impl Seat {
    /// The port to listen on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A listener on that port, the same for every runtime that takes one: non-blocking, with room
    /// for every connection of the load. `TCP_NODELAY` is set here, because on Linux accepted
    /// sockets inherit it.
    pub fn listen(&self) -> io::Result<TcpListener> {
        let socket = shared_socket()?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)).into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    }

    /// Reports that this worker listens; the harness is notified when all do. The service says what
    /// to do with the connections.
    pub fn listening(&self) -> Service {
        let service = Service::new(&self.orders);
        if self.missing.fetch_sub(1, Ordering::Relaxed) == 1 {
            announce(self.port, &self.backend);
        }
        service
    }
}

/// Wakes itself and waits once: for runtimes that have no such function.
pub fn yield_now() -> impl Future<Output = ()> {
    let mut yielded = false;
    poll_fn(move |context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
}

/// A free port, which stays reserved for listeners of this process as long as the socket lives: a
/// socket that is bound but does not listen gets no connections.
fn reserve_port() -> io::Result<(Socket, u16)> {
    let socket = shared_socket()?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    let address = socket.local_addr()?.as_socket();
    let port = address.map_or(0, |address| address.port());
    Ok((socket, port))
}

fn shared_socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    Ok(socket)
}

/// The length of the queue of connections that have not been accepted.
pub const BACKLOG: i32 = 4096;
