//! Only the library cancels: `Cancelled` has no constructor.

fn pretend() -> trio::Cancelled {
    trio::Cancelled(Default::default())
}

fn main() {
    let _ = pretend;
}
