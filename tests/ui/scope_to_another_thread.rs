//! No other thread can cancel a scope by its handle.

fn main() {
    let scope = trio::CancelScope::new();
    std::thread::spawn(move || scope.cancel("from outside"));
}
