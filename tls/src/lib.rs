//! TLS over any stream of `trio`. Nothing is public here yet.
