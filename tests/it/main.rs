//! The public promise, through the public door, on every backend: one binary.

#![allow(clippy::unwrap_used)] // all of this is tests, though the lint cannot see it

mod cancel_io;
mod echo;
mod faults;
mod network;
mod serve;
mod support;
mod tcp;
