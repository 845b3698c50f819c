//! The driver of a simulated world: submit, let time pass, report, in that order.
//!
//! The kernel that it simulates works an operation by attempts. An attempt that finds nothing lets
//! the operation wait for its socket; a change of the socket makes it due again. An operation *ends*
//! when an attempt succeeds or fails, or when a cancel finds it waiting, and is *reported* at that
//! time or later. So a cancel that comes between the two finds it too late, as in a real kernel.
//!
//! Whatever drops a descriptor locks the world, to close its socket. Therefore nothing here lets go
//! of an operation while it has the world locked.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::errno::Errno;
use super::fault::Fault;
use super::network::{Network, SocketId, Waiter};
use super::parker::Parker;
use super::script::Kind;
use super::trace::{Outcome, What};
use super::world::{Due, Passed, Request, World};
use super::{Endpoint, Simulation};
use crate::Time;
use crate::buf::{Lease, Pool};
use crate::driver::{
    Backend, Completed, Drained, Driver, DriverStatistics, Family, Key, Token, Unparker, Wait,
};
use crate::fd::{Descriptor, Object};
use crate::op::table::{Abandon, Table};
use crate::op::{Accept, Connect, Finished, Interest, Operation, Receive, Send, cancelled};

/// A driver over a simulated world; made by [`Simulation::driver`].
pub struct SimulatedDriver {
    simulation: Simulation,
    /// Its name in the world.
    id: u32,
    table: Table,
    /// Every operation in flight, and how far it is.
    progress: HashMap<Key, Progress>,
    pool: Pool,
    parker: Arc<Parker>,
}

/// How far an operation in flight is.
#[derive(Debug, Default)]
struct Progress {
    /// What goes wrong with it, if it has started.
    fault: Option<Fault>,
    /// Whether it has ended, and only the report is to come.
    ended: bool,
}

/// How an attempt went.
enum Attempt {
    Ended(io::Result<u32>),
    /// Waits for its socket.
    Waits(SocketId, Interest),
    /// Found no provided buffer, and is to be repeated with the one that it has been given.
    NoBuffer,
}

impl SimulatedDriver {
    pub(super) fn new(simulation: Simulation) -> Self {
        let parker = Arc::new(Parker::new());
        let mut world = simulation.world();
        let id = world.add_driver(parker.clone());
        let pool = Pool::new(world.block_size, SPARE_BLOCKS_MAX);
        drop(world);
        Self {
            simulation,
            id,
            table: Table::default(),
            progress: HashMap::new(),
            pool,
            parker,
        }
    }

    // Submitting.

    fn queue(&mut self, request: Request) {
        if self.simulation.world().queue(self.id, request) {
            self.table.statistics.overflowed += 1;
        }
    }

    /// A turn of a driver that is not [broken](Simulation::break_drivers).
    fn go_on(&mut self, wait: Wait, completed: &mut Vec<Completed>) {
        let before = completed.len();
        // An unparker that has called makes this a turn that does not wait.
        let waits = !self.parker.take_call() && wait != Wait::Poll;
        let limit = match wait {
            Wait::Poll => Time::PAST,
            Wait::For(duration) => self.simulation.now() + duration,
            Wait::Forever => Time::NEVER,
        };
        loop {
            if waits || self.simulation.world().has_requests(self.id) {
                self.enter();
            }
            self.collect(completed);
            if !waits || completed.len() > before {
                return;
            }
            let mut world = self.simulation.world();
            if world.has_requests(self.id) {
                continue;
            }
            match world.pass(self.id, limit) {
                Passed::ToEvent => {}
                Passed::ToLimit => return,
                Passed::Not => {
                    drop(world);
                    self.parker.wait();
                    if self.parker.take_call() {
                        self.collect(completed);
                        return;
                    }
                }
            }
        }
    }

    /// Calls the kernel, which takes in as many requests as its queue holds. A call that fails
    /// leaves the queue as it was, and is repeated.
    fn enter(&mut self) {
        let mut world = self.simulation.world();
        // The bound stands for the patience of the simulated kernel: one that fails for ever would
        // be one that has died.
        for _ in 0..ENTERS_FAILED_MAX {
            self.table.statistics.enters += 1;
            if world.fault(Kind::Enter, None, None).is_none() {
                break;
            }
        }
        let requests = world.take_requests(self.id);
        drop(world);
        for request in requests {
            match request {
                Request::Start(key) => self.start(key),
                Request::Cancel(key) => self.start_cancel(key),
            }
        }
    }

    fn start(&mut self, key: Key) {
        let Some(operation) = self.table.in_flight_mut(key) else {
            return;
        };
        let (kind, name) = (kind(operation), operation.name());
        let mut world = self.simulation.world();
        world.record(What::Started {
            operation: number(key),
            name,
        });
        let (local, peer) = addresses(&world, own_socket(&self.simulation, operation.descriptor()));
        let fault = world.fault(kind, local, peer);
        if let Some(progress) = self.progress.get_mut(&key) {
            progress.fault = fault;
        }
        if let Some(Fault::LateStart(delay)) = fault {
            world.schedule(delay, self.id, Due::Run(key));
            return;
        }
        drop(world);
        self.run(key);
    }

    fn start_cancel(&mut self, key: Key) {
        self.table.statistics.cancels += 1;
        let Some(operation) = self.table.in_flight_mut(key) else {
            return;
        };
        let mut world = self.simulation.world();
        world.record(What::Cancelling {
            operation: number(key),
        });
        let (local, peer) = addresses(&world, own_socket(&self.simulation, operation.descriptor()));
        let delay = match world.fault(Kind::Cancel, local, peer) {
            Some(Fault::LateStart(delay)) => delay,
            _ => Duration::ZERO,
        };
        // Not at once even then: chance decides between it and what has just woken the operation.
        world.schedule(delay, self.id, Due::Cancel(key));
    }

    // Working.

    /// Sees to everything that is due now.
    fn collect(&mut self, completed: &mut Vec<Completed>) {
        loop {
            let due = self.simulation.world().take_due(self.id);
            if due.is_empty() {
                return;
            }
            for due in due {
                match due {
                    Due::Run(key) => self.run(key),
                    Due::Cancel(key) => self.cancel_now(key),
                    Due::Report(key, result) => completed.extend(self.report(key, result)),
                }
            }
        }
    }

    /// Attempts an operation, unless it has ended.
    fn run(&mut self, key: Key) {
        let Some(progress) = self.progress.get(&key) else {
            return;
        };
        if progress.ended {
            return;
        }
        let fault = progress.fault;
        let operation = self
            .table
            .in_flight_mut(key)
            .expect("an operation with progress is in flight");
        // The kernel may touch the memory of the operation, and this is the kernel.
        operation.unpoison();
        let mut world = self.simulation.world();
        let mut kernel = Kernel {
            simulation: &self.simulation,
            world: &mut world,
            pool: &self.pool,
        };
        let attempt = kernel.attempt(operation, fault);
        operation.poison();
        let waiter = Waiter {
            driver: self.id,
            key,
        };
        match attempt {
            Attempt::Waits(socket, interest) => world.network.wait(socket, interest, waiter),
            Attempt::NoBuffer => {
                self.table.statistics.buffers_exhausted += 1;
                world.schedule(Duration::ZERO, self.id, Due::Run(key));
            }
            Attempt::Ended(result) => {
                drop(world);
                let delay = match fault {
                    Some(Fault::LateCompletion(delay)) => delay,
                    _ => Duration::ZERO,
                };
                self.end(key, result, delay);
            }
        }
    }

    /// Ends an operation as cancelled, unless it has ended.
    fn cancel_now(&mut self, key: Key) {
        let Some(progress) = self.progress.get(&key) else {
            return;
        };
        if progress.ended {
            return;
        }
        let operation = self.table.in_flight_mut(key);
        let socket =
            operation.map(|operation| own_socket(&self.simulation, operation.descriptor()));
        if let Some(Ok(socket)) = socket {
            let waiter = Waiter {
                driver: self.id,
                key,
            };
            self.simulation.world().network.forget(socket, waiter);
        }
        self.end(key, Err(cancelled()), Duration::ZERO);
    }

    fn end(&mut self, key: Key, result: io::Result<u32>, delay: Duration) {
        if let Some(progress) = self.progress.get_mut(&key) {
            assert!(!progress.ended, "an operation ends once");
            progress.ended = true;
        }
        let mut world = self.simulation.world();
        world.schedule(delay, self.id, Due::Report(key, result));
    }

    /// The last completion of an operation; `None` if it comes after [`Driver::drain`] has leaked
    /// the operation.
    fn report(&mut self, key: Key, result: io::Result<u32>) -> Option<Completed> {
        self.progress.remove(&key)?;
        self.simulation.world().record(What::Ended {
            operation: number(key),
            outcome: Outcome::of(&result),
        });
        Some(self.table.complete(key, result))
    }

    // Sockets.

    /// The socket behind `descriptor`, which must be one of this world.
    fn socket_of(&self, descriptor: &Descriptor) -> io::Result<SocketId> {
        own_socket(&self.simulation, descriptor)
    }

    /// The fault for a transfer that is attempted outside an operation, and the most bytes that it
    /// lets through. One that would wait is no transfer, and gets none.
    fn transfer(&self, kind: Kind, on: &Descriptor, wanted: usize) -> io::Result<usize> {
        let socket = self.socket_of(on)?;
        let mut world = self.simulation.world();
        if !may_go_on(&world.network, kind, socket) {
            return Err(Errno::Again.into());
        }
        let (local, peer) = addresses(&world, Ok(socket));
        match world.fault(kind, local, peer) {
            Some(Fault::Short(most)) => Ok(wanted.min(most.max(1))),
            Some(Fault::Fail(errno)) => Err(errno.into()),
            Some(Fault::Reset) => {
                world.network.reset(socket);
                world.settle();
                Ok(wanted)
            }
            _ => Ok(wanted),
        }
    }
}

impl Driver for SimulatedDriver {
    fn backend(&self) -> Backend {
        Backend::Simulation
    }

    fn submit(&mut self, operation: Operation, token: Token) -> Key {
        let key = self.table.insert(operation, token);
        self.progress.insert(key, Progress::default());
        self.queue(Request::Start(key));
        key
    }

    fn cancel(&mut self, key: Key) {
        if self.table.begin_cancel(key) {
            self.queue(Request::Cancel(key));
        }
    }

    fn abandon(&mut self, key: Key) -> bool {
        match self.table.abandon(key) {
            Abandon::Settled => false,
            Abandon::InFlight { cancel } => {
                if cancel {
                    self.queue(Request::Cancel(key));
                }
                true
            }
        }
    }

    fn take(&mut self, key: Key) -> Option<Finished> {
        self.table.take(key)
    }

    fn turn(&mut self, wait: Wait, completed: &mut Vec<Completed>) -> io::Result<()> {
        if let Some(errno) = self.simulation.world().broken {
            return Err(errno.into());
        }
        self.go_on(wait, completed);
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.table.in_flight()
    }

    fn drain(&mut self, bound: Duration) -> Drained {
        let limit = self.simulation.now() + bound;
        for key in self.table.keys_in_flight() {
            self.cancel(key);
        }
        let mut completed = Vec::new();
        while self.table.in_flight() > 0 {
            let left = limit - self.simulation.now();
            self.go_on(Wait::For(left), &mut completed);
            if left.is_zero() {
                break;
            }
        }
        self.progress.clear();
        Drained {
            leaked: self.table.leak(),
        }
    }

    fn unparker(&self) -> Unparker {
        Unparker::new(self.parker.clone())
    }

    fn virtual_time(&self) -> Option<Time> {
        Some(self.simulation.now())
    }

    fn statistics(&self) -> DriverStatistics {
        DriverStatistics {
            blocks_leased: self.pool.leased(),
            ..self.table.statistics
        }
    }

    fn buffer(&mut self) -> Lease {
        self.pool.lease()
    }

    fn likely_readable(&self, on: &Descriptor) -> bool {
        on.likely_readable()
    }

    fn socket(&mut self, family: Family) -> io::Result<Descriptor> {
        let network = &mut self.simulation.world().network;
        if network.missing.contains(&family) {
            return Err(Errno::AddressFamily.into());
        }
        let socket = network.socket(family);
        Ok(self.simulation.descriptor(socket))
    }

    fn bind(
        &mut self,
        socket: &Descriptor,
        address: &SocketAddr,
        share_port: bool,
    ) -> io::Result<()> {
        let socket = self.socket_of(socket)?;
        let network = &mut self.simulation.world().network;
        Ok(network.bind(socket, *address, share_port)?)
    }

    fn listen(&mut self, socket: &Descriptor, backlog: u32) -> io::Result<()> {
        let socket = self.socket_of(socket)?;
        Ok(self.simulation.world().network.listen(socket, backlog)?)
    }

    fn local_address(&self, socket: &Descriptor) -> io::Result<SocketAddr> {
        let socket = self.socket_of(socket)?;
        Ok(self.simulation.world().network.local_address(socket))
    }

    fn peer_address(&self, socket: &Descriptor) -> io::Result<SocketAddr> {
        let socket = self.socket_of(socket)?;
        Ok(self.simulation.world().network.peer_address(socket)?)
    }

    fn prepare_stream(&mut self, _socket: &Descriptor) {
        // The simulated network holds nothing back.
    }

    fn shutdown_send(&mut self, socket: &Descriptor) -> io::Result<()> {
        let socket = self.socket_of(socket)?;
        let mut world = self.simulation.world();
        let result = world.network.shutdown_send(socket);
        world.settle();
        Ok(result?)
    }

    fn reset_on_close(&mut self, socket: &Descriptor) -> io::Result<()> {
        let socket = self.socket_of(socket)?;
        self.simulation.world().network.reset_on_close(socket);
        Ok(())
    }

    fn try_receive(&mut self, from: &Descriptor, into: &mut [u8]) -> io::Result<usize> {
        let socket = self.socket_of(from)?;
        let most = self.transfer(Kind::Receive, from, into.len())?;
        let mut world = self.simulation.world();
        let result = world.network.receive(socket, &mut into[..most]);
        from.set_likely_readable(world.network.has_more(socket));
        world.settle();
        Ok(result?)
    }

    fn try_send(&mut self, to: &Descriptor, data: &[u8]) -> io::Result<usize> {
        let socket = self.socket_of(to)?;
        let most = self.transfer(Kind::Send, to, data.len())?;
        let mut world = self.simulation.world();
        let result = world.network.send(socket, &data[..most]);
        world.settle();
        Ok(result?)
    }
}

impl Drop for SimulatedDriver {
    fn drop(&mut self) {
        self.simulation.world().remove_driver(self.id);
    }
}

impl fmt::Debug for SimulatedDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedDriver")
            .field("simulation", &self.simulation)
            .field("in_flight", &self.table.in_flight())
            .finish_non_exhaustive()
    }
}

/// What an attempt works with.
struct Kernel<'a> {
    simulation: &'a Simulation,
    world: &'a mut World,
    pool: &'a Pool,
}

impl Kernel<'_> {
    fn attempt(&mut self, operation: &mut Operation, fault: Option<Fault>) -> Attempt {
        let interest = operation.interest();
        let socket = match own_socket(self.simulation, operation.descriptor()) {
            Ok(socket) => socket,
            Err(error) => return Attempt::Ended(Err(error)),
        };
        if let Operation::Connect(connect) = operation {
            if let Err(errno) = self.begin_connect(socket, connect, fault) {
                return Attempt::Ended(Err(errno.into()));
            }
        }
        let possible = match operation {
            Operation::Ready(_) if interest == Interest::Readable => {
                self.world.network.is_readable(socket)
            }
            Operation::Ready(_) => self.world.network.is_writable(socket),
            _ => may_go_on(&self.world.network, kind(operation), socket),
        };
        if !possible {
            give_back_block(operation);
            return Attempt::Waits(socket, interest);
        }
        match fault {
            Some(Fault::Reset) => self.world.network.reset(socket),
            Some(Fault::Fail(errno)) => {
                if let (Operation::Accept(_), Errno::ConnectionAborted) = (&operation, errno) {
                    self.world.network.abort_accept(socket);
                }
                return Attempt::Ended(Err(errno.into()));
            }
            _ => {}
        }
        let most = match fault {
            Some(Fault::Short(most)) => most.max(1),
            _ => usize::MAX,
        };
        let result = match operation {
            Operation::Receive(receive) => {
                if fault == Some(Fault::NoBuffer) && receive.into.is_none() {
                    // The block that it brings along the next time is how a repeat is known.
                    receive.into = Some(self.pool.lease());
                    return Attempt::NoBuffer;
                }
                self.receive(socket, receive, most)
            }
            Operation::Send(send) => self.send(socket, send, most),
            Operation::Accept(accept) => self.accept(socket, accept),
            Operation::Connect(_) => self.world.network.connected(socket).map(|()| 0),
            Operation::Ready(_) => Ok(0),
        };
        match result {
            Ok(count) => Attempt::Ended(Ok(count)),
            Err(Errno::Again) => {
                give_back_block(operation);
                Attempt::Waits(socket, interest)
            }
            Err(errno) => Attempt::Ended(Err(errno.into())),
        }
    }

    /// Sends the request to connect, once. One that is to fail is never sent.
    fn begin_connect(
        &mut self,
        socket: SocketId,
        connect: &mut Connect,
        fault: Option<Fault>,
    ) -> Result<(), Errno> {
        if let Some(Fault::Fail(errno)) = fault {
            return Err(errno);
        }
        if std::mem::replace(&mut connect.begun, true) {
            return Ok(());
        }
        self.world.network.connect(socket, connect.peer)
    }

    /// Chooses a block only now that there is something to put into it.
    fn receive(
        &mut self,
        socket: SocketId,
        receive: &mut Receive,
        most: usize,
    ) -> Result<u32, Errno> {
        let lease = receive.into.get_or_insert_with(|| self.pool.lease());
        let block = lease.block_mut();
        let most = most.min(block.len());
        let result = self.world.network.receive(socket, &mut block[..most]);
        let more = self.world.network.has_more(socket);
        receive.from.set_likely_readable(more);
        result.map(count)
    }

    fn send(&mut self, socket: SocketId, send: &mut Send, most: usize) -> Result<u32, Errno> {
        let data = send.remaining();
        let data = &data[..data.len().min(most)];
        self.world.network.send(socket, data).map(count)
    }

    fn accept(&mut self, socket: SocketId, accept: &mut Accept) -> Result<u32, Errno> {
        let accepted = self.world.network.accept(socket)?;
        accept.accepted = Some(self.simulation.descriptor(accepted));
        Ok(0)
    }
}

/// Whether an attempt would not have to wait. One that can only fail need not wait.
fn may_go_on(network: &Network, kind: Kind, socket: SocketId) -> bool {
    match kind {
        Kind::Accept => !network.is_listener(socket) || network.is_readable(socket),
        Kind::Receive => network.is_listener(socket) || network.is_readable(socket),
        Kind::Send => network.is_listener(socket) || network.is_writable(socket),
        Kind::Connect => network.has_connected(socket),
        Kind::Ready | Kind::Cancel | Kind::Enter => true,
    }
}

/// An operation that waits holds no memory for what may come.
fn give_back_block(operation: &mut Operation) {
    if let Operation::Receive(receive) = operation {
        receive.into = None;
    }
}

fn endpoint(descriptor: &Descriptor) -> io::Result<&Endpoint> {
    match descriptor.object() {
        Object::Simulated(endpoint) => Ok(endpoint),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "expected a socket of the simulated network, and got a descriptor of the system",
        )),
    }
}

fn own_socket(simulation: &Simulation, descriptor: &Descriptor) -> io::Result<SocketId> {
    let endpoint = endpoint(descriptor)?;
    if !endpoint.simulation.same(simulation) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "expected a socket of this simulation, and got one of another",
        ));
    }
    Ok(endpoint.socket)
}

/// The addresses that a socket has, for the rules of the script.
fn addresses(
    world: &World,
    socket: io::Result<SocketId>,
) -> (Option<SocketAddr>, Option<SocketAddr>) {
    let Ok(socket) = socket else {
        return (None, None);
    };
    let local = world.network.local_address(socket);
    (Some(local), world.network.peer_address(socket).ok())
}

fn kind(operation: &Operation) -> Kind {
    match operation {
        Operation::Receive(_) => Kind::Receive,
        Operation::Send(_) => Kind::Send,
        Operation::Accept(_) => Kind::Accept,
        Operation::Connect(_) => Kind::Connect,
        Operation::Ready(_) => Kind::Ready,
    }
}

/// The number of an operation in traces: how many were submitted to its driver until it was.
fn number(key: Key) -> u32 {
    u32::try_from(key.0 >> 32).expect("a generation has 32 bits")
}

fn count(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

const ENTERS_FAILED_MAX: u32 = 8;

/// As many blocks as a busy test has in use at once; more are freed.
const SPARE_BLOCKS_MAX: usize = 1024;
