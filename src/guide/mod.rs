//! The guide: pages to read, beside the reference.
//!
//! - [Recipes](recipes): small programs that put the pieces together.
//! - [Coming from Trio](from_trio): what the names are here, and what differs.
//! - [Coming from tokio](from_tokio): what to write instead of `spawn`, `select!` and the rest.
//! - [Testing](testing): tests that are fast, reliable and thorough.

pub mod from_tokio;
pub mod from_trio;
pub mod recipes;
pub mod testing;
