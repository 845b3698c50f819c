//! Two children run at once: only one of them can borrow something mutably.

fn main() -> trio::Result<()> {
    trio::run(async {
        let mut count = 0;
        let count = &mut count;
        trio::open_nursery(async |nursery| {
            nursery.start_soon(async {
                *count += 1;
                trio::checkpoint().await
            });
            nursery.start_soon(async {
                *count += 1;
                trio::checkpoint().await
            });
            Ok(())
        })
        .await
    })
}
