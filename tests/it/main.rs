//! The public promise, through the public door, on every backend: one binary.

mod auto_traits;
mod echo;
mod support;
