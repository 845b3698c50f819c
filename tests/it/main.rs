//! The public promise, through the public door, on every backend: one binary.

#![allow(clippy::unwrap_used)] // all of this is tests, though the lint cannot see it

mod auto_traits;
mod cancel;
mod cancel_io;
mod checkpoint;
mod deadline;
mod echo;
mod error_groups;
mod faults;
mod instrument;
mod limits;
mod mock_clock;
mod network;
mod nursery;
mod panic;
mod race;
mod random;
mod run;
mod scope;
mod serve;
#[cfg(feature = "tracing")]
mod spans;
mod start;
mod stream_flaws;
mod streams;
mod support;
mod tcp;
mod test_kit;
