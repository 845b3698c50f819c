//! The public promise, through the public door, on every backend: one binary.

mod auto_traits;
mod cancel;
mod checkpoint;
mod deadline;
mod echo;
mod error_groups;
mod limits;
mod nursery;
mod panic;
mod race;
mod random;
mod run;
mod scope;
mod start;
mod support;
