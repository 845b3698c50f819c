//! The public promise, through the public door, on every backend: one binary.

#![allow(clippy::unwrap_used)] // all of this is tests, though the lint cannot see it

mod auto_traits;
mod cancel;
mod cancel_io;
mod channel;
mod channel_broadcast;
mod channel_safe;
mod channel_select;
#[cfg(feature = "futures")]
mod channel_stream;
mod channel_thread;
mod checkpoint;
mod combine;
mod combine_random;
mod deadline;
mod deadlock;
mod drain;
#[cfg(unix)]
mod dump;
mod echo;
mod entry_queue;
mod error_groups;
mod faults;
mod guest;
mod handle;
mod instrument;
mod limits;
mod local;
mod lock;
mod mock_clock;
mod model;
mod network;
mod nursery;
mod panic;
mod parking;
mod race;
mod random;
mod rate;
mod run;
mod scope;
mod serve;
mod service;
#[cfg(unix)]
mod signals;
mod sockets;
mod soundness;
#[cfg(feature = "tracing")]
mod spans;
mod start;
mod statistics;
mod stream_flaws;
mod streams;
mod supervise;
mod support;
mod sync;
mod tcp;
mod test_kit;
mod threads;
mod wakers;
mod watchdog;
mod workers;
