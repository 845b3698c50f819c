//! The public promise, through the public door, on every backend: one binary.

mod echo;
mod support;
