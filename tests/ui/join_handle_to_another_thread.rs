//! No other thread can wait for a child.

fn main() -> trio::Result<()> {
    trio::run(trio::open_nursery(async |nursery| {
        let handle = nursery.spawn(async { Ok(1) });
        std::thread::scope(|threads| {
            threads.spawn(move || handle.is_finished());
        });
        Ok(())
    }))
}
