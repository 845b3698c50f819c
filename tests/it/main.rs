//! The public promise, through the public door, on every backend: one binary.

#![allow(clippy::unwrap_used)] // all of this is tests, though the lint cannot see it

mod auto_traits;
mod cancel;
mod cancel_io;
mod checkpoint;
mod deadline;
mod echo;
mod entry_queue;
mod error_groups;
mod faults;
mod limits;
mod local;
mod lock;
mod model;
mod network;
mod nursery;
mod panic;
mod parking;
mod race;
mod random;
mod run;
mod scope;
mod serve;
mod start;
mod support;
mod sync;
mod tcp;
mod threads;
mod workers;
