//! The simulated kernel: virtual time, an in-memory network, an order by seed, and faults.
//!
//! A [`Simulation`] is a small world. The driver that it makes behaves as the real ones do, by the
//! rules at the head of `driver.rs`, but nothing in it is left to the machine: time passes only when
//! nothing is left to do, and then at once; what may come in any order comes in one that the seed
//! decides; and what may go wrong goes wrong as [`Faults`] and [`Rule`]s say. The same program with
//! the same seed does the same, and leaves the same [trace](Simulation::trace).
//!
//! # Time
//!
//! A turn that has nothing to do moves the clock to the next event, or to the end of its wait. With
//! nothing to come and no end, it waits for real, for another thread may call an [`Unparker`]; a
//! world in which that would be the only hope [is idle](Simulation::is_idle). Where another thread
//! works for the program, [`Simulation::hold_time`] keeps the clock from running ahead of it.
//!
//! # Order
//!
//! Operations that could end at one moment are worked and reported in any order, those on one
//! descriptor included, as a kernel may. What travels through one connection stays in order.
//!
//! # Examples
//!
//! A message of eleven bytes over a network of ten milliseconds each way:
//!
//! ```
//! use std::time::Duration;
//! use trio_platform::sim::Simulation;
//! use trio_platform::{Accept, Connect, Driver, Family, Receive, Send, Token, Wait};
//!
//! let way = Duration::from_millis(10);
//! let simulation = Simulation::new(1).latency(way..=way);
//! let mut driver = simulation.driver();
//! let start = simulation.now();
//!
//! let listener = driver.socket(Family::V4)?;
//! driver.bind(&listener, &"10.0.0.1:80".parse().unwrap(), false)?;
//! driver.listen(&listener, 16)?;
//! let client = driver.socket(Family::V4)?;
//! let address = driver.local_address(&listener)?;
//! let accept = driver.submit(Accept::new(listener).into(), Token(1));
//! let connect = driver.submit(Connect::new(client.clone(), address).into(), Token(2));
//!
//! let mut completed = Vec::new();
//! while completed.len() < 2 {
//!     driver.turn(Wait::Forever, &mut completed)?;
//! }
//! assert_eq!(simulation.now() - start, way * 2);
//! driver.take(connect).unwrap().into_connected()?;
//! let server = driver.take(accept).unwrap().into_accepted()?;
//!
//! driver.submit(Send::new(client, &b"hello world"[..]).into(), Token(3));
//! let receive = driver.submit(Receive::new(server).into(), Token(4));
//! while completed.len() < 4 {
//!     driver.turn(Wait::Forever, &mut completed)?;
//! }
//! assert_eq!(&*driver.take(receive).unwrap().into_received()?, b"hello world");
//! assert_eq!(simulation.now() - start, way * 3);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! [`Unparker`]: crate::Unparker

mod driver;
mod errno;
mod fault;
mod network;
mod parker;
mod random;
mod script;
mod timeline;
mod trace;
mod world;

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use driver::SimulatedDriver;
pub use errno::Errno;
pub use fault::{Fault, Faults};
pub use script::{Kind, Rule};
pub use trace::{Outcome, TraceEvent, What};

use crate::Time;
use crate::driver::Family;
use crate::fd::{Descriptor, Object};
use network::SocketId;
use world::World;

/// A simulated world; clones are handles of the same one.
///
/// Several drivers may share a world, at once or one after another. The seed decides everything as
/// long as they run on one thread.
///
/// # Examples
///
/// ```
/// use trio_platform::sim::{Faults, Simulation};
/// use trio_platform::{Driver, Family};
///
/// fn program(simulation: &Simulation) -> std::io::Result<()> {
///     let mut driver = simulation.driver();
///     let socket = driver.socket(Family::V6)?;
///     driver.bind(&socket, &"[::1]:0".parse().unwrap(), false)
/// }
///
/// let (one, two) = (Simulation::new(7), Simulation::new(7));
/// program(&one)?;
/// program(&two)?;
/// assert_eq!(one.fingerprint(), two.fingerprint());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Simulation(Arc<Mutex<World>>);

impl Simulation {
    /// A new world, without latency and without faults, in which `seed` decides whatever is random.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(World::new(seed))))
    }

    /// A driver over this world, for the current thread.
    pub fn driver(&self) -> SimulatedDriver {
        SimulatedDriver::new(self.clone())
    }

    // Setting up.

    /// How long something sent takes to arrive; each time anew, from this range. Zero by default.
    #[must_use]
    pub fn latency(self, range: RangeInclusive<Duration>) -> Self {
        self.world().network.latency = range;
        self
    }

    /// How many bytes each direction of a connection made from now on holds; 64 KiB by default.
    ///
    /// # Panics
    ///
    /// If `bytes` is zero.
    #[must_use]
    pub fn buffer_size(self, bytes: usize) -> Self {
        assert!(bytes > 0, "a direction of a connection needs room");
        self.world().network.buffer_size = bytes;
        self
    }

    /// Makes a machine without `family`: no socket of that family can be made.
    #[must_use]
    pub fn without_family(self, family: Family) -> Self {
        self.world().network.missing.push(family);
        self
    }

    /// How many requests a driver hands to the kernel at once; 256 by default. More wait for the
    /// next call, and are counted in [`overflowed`](crate::DriverStatistics::overflowed).
    ///
    /// # Panics
    ///
    /// If `entries` is zero.
    #[must_use]
    pub fn queue_entries(self, entries: usize) -> Self {
        assert!(entries > 0, "a queue has an entry");
        self.world().queue_entries = entries;
        self
    }

    /// The size of the blocks into which drivers made from now on receive; 16 KiB by default.
    ///
    /// # Panics
    ///
    /// If `bytes` is zero.
    #[must_use]
    pub fn block_size(self, bytes: u32) -> Self {
        assert!(bytes > 0, "a block needs room");
        self.world().block_size = bytes;
        self
    }

    /// How often things go wrong at random; [`Faults::none`] by default. See also
    /// [`Simulation::set_faults`].
    #[must_use]
    pub fn faults(self, faults: Faults) -> Self {
        self.set_faults(faults);
        self
    }

    /// Adds one scripted fault; these come before random ones. See also [`Simulation::inject`].
    #[must_use]
    pub fn script(self, rule: Rule) -> Self {
        self.inject(rule);
        self
    }

    // While it runs.

    /// Changes how often things go wrong at random, for operations that start from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.world().faults = faults;
    }

    /// Adds one scripted fault, counted from now on.
    pub fn inject(&self, rule: Rule) {
        self.world().script.add(rule);
    }

    /// Breaks all drivers: each of their turns fails with `errno` from now on, as when the kernel no
    /// longer accepts a ring or a selector that it has given out. What is in flight can still be
    /// taken back.
    pub fn break_drivers(&self, errno: Errno) {
        self.world().broken = Some(errno);
    }

    /// The virtual time, which is that of every driver over this world.
    pub fn now(&self) -> Time {
        self.world().now
    }

    /// Keeps the virtual time from passing while the hold lives: a driver with nothing to do waits
    /// for real instead.
    ///
    /// For when another thread works for the program, so that a deadline does not pass in the
    /// virtual instant that the work takes.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use trio_platform::sim::Simulation;
    /// use trio_platform::{Driver, Wait};
    ///
    /// let simulation = Simulation::new(1);
    /// let mut driver = simulation.driver();
    /// let unparker = driver.unparker();
    /// let start = simulation.now();
    /// let hold = simulation.hold_time();
    /// std::thread::scope(|threads| {
    ///     threads.spawn(move || {
    ///         // The work.
    ///         unparker.unpark();
    ///         drop(hold);
    ///     });
    ///     driver.turn(Wait::For(Duration::from_secs(60)), &mut Vec::new())
    /// })?;
    /// assert_eq!(simulation.now(), start);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn hold_time(&self) -> TimeHold {
        self.world().holds += 1;
        TimeHold(self.clone())
    }

    /// Whether nothing is going to happen in this world unless a driver is given something to do:
    /// no event is to come, nobody holds the time, and every driver has seen to everything.
    ///
    /// A program that waits in an idle world, without a deadline and without another thread that
    /// might call, waits for ever.
    pub fn is_idle(&self) -> bool {
        self.world().is_idle()
    }

    /// How many sockets are open, including connections that have not been accepted; so zero when a
    /// program that closes everything has ended.
    pub fn open_sockets(&self) -> usize {
        self.world().network.open_sockets()
    }

    /// What has happened, in order: the latest hundred thousand events.
    pub fn trace(&self) -> Vec<TraceEvent> {
        self.world().trace.latest()
    }

    /// A hash of all that has happened. Two runs whose traces differ anywhere have different ones,
    /// except by a chance of one in 2^64.
    ///
    /// It can be compared only within one build of a program.
    pub fn fingerprint(&self) -> u64 {
        self.world().trace.fingerprint()
    }

    fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The descriptor of a socket that has none yet.
    fn descriptor(&self, socket: SocketId) -> Descriptor {
        Descriptor::new(Object::Simulated(Endpoint {
            simulation: self.clone(),
            socket,
        }))
    }

    /// Locks the world. Nobody leaves it half changed by a panic that matters more than the panic
    /// itself, so a poisoned lock is taken all the same: sockets are closed while unwinding.
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Simulation");
        // Whoever prints while the world is locked prints less, rather than wait for himself.
        if let Ok(world) = self.0.try_lock() {
            debug.field("seed", &world.seed).field("now", &world.now);
        }
        debug.finish_non_exhaustive()
    }
}

/// Keeps the virtual time of a world from passing until it is dropped; see
/// [`Simulation::hold_time`].
#[derive(Debug)]
#[must_use = "time passes again as soon as the hold is dropped"]
pub struct TimeHold(Simulation);

impl Drop for TimeHold {
    fn drop(&mut self) {
        let mut world = self.0.world();
        world.holds -= 1;
        world.nudge();
    }
}

/// A socket of the simulated network; closed when dropped.
pub(crate) struct Endpoint {
    simulation: Simulation,
    socket: SocketId,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let mut world = self.simulation.world();
        world.network.close(self.socket);
        world.settle();
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "simulated {:?}", self.socket)
    }
}
