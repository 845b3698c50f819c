//! The kernel beneath `trio`: operations that run to completion, the memory they own, and the three
//! drivers that run them.
//!
//! Upward this crate promises the rules at the head of [`driver`](Driver) and of `op/mod.rs`. It
//! knows no task: an operation goes in with a [`Token`], and the token comes out when it has ended.

pub mod buf;
mod choose;
mod clock;
mod driver;
mod fd;
mod op;
pub mod polling;
mod prefetch;
pub mod sim;
mod socket;
mod stack;
mod thread;
#[cfg(target_os = "linux")]
pub mod uring;
mod waiter;

pub use choose::{Config, Opened, open};
pub use clock::{SystemClock, Time};
pub use driver::{
    Backend, Completed, Drained, Driver, DriverStatistics, Family, Key, Token, Unparker, Wait,
};
pub use fd::{Descriptor, Direction, WeakDescriptor};
pub use op::{
    Accept, AcceptFailure, Connect, Finished, Interest, Operation, Ready, Receive, Send,
    accept_failure, cancelled, is_cancelled,
};
pub use prefetch::prefetch;
pub use socket::{is_family_unavailable, lacks_descriptors};
pub use stack::{stack_position, stack_remaining};
pub use thread::{name_thread, pin_thread, processors};
pub use waiter::Waiter;
