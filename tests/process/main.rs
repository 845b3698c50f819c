//! Tests that need a process of their own: the echo server of the examples, as a user starts it,
//! under clients that know nothing of this library; signals, limits, and a kernel that refuses;
//! what a run prints on standard error; the counting of descriptors; and what children see of them.

#![cfg(target_os = "linux")] // what a process holds is read from /proc
#![allow(clippy::unwrap_used)] // every file here is a test, though the lint cannot see it

mod client;
mod descriptors;
mod inherit;
mod limits;
mod lines;
mod load;
mod says;
mod server;
mod signals;
mod start;
mod stop;

/// Makes one test of each case and each backend, such as `half_close::polling`.
macro_rules! on_both_backends {
    ($($case:ident),+ $(,)?) => {$(
        mod $case {
            #[test]
            fn io_uring() {
                super::$case("io_uring");
            }

            #[test]
            fn polling() {
                super::$case("polling");
            }
        }
    )+};
}
use on_both_backends;
