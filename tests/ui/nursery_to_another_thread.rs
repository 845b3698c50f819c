//! No other thread can start children in a nursery.

fn main() -> trio::Result<()> {
    trio::run(trio::open_nursery(async |nursery| {
        std::thread::scope(|threads| {
            threads.spawn(|| nursery.start_soon(async { Ok(()) }));
        });
        Ok(())
    }))
}
