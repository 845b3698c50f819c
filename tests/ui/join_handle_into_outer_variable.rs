//! A handle is the right to a value that may borrow, and is valid inside the nursery only.

fn main() -> trio::Result<()> {
    trio::run(async {
        let mut outer = None;
        trio::open_nursery(async |nursery| {
            outer = Some(nursery.spawn(async { Ok(1) }));
            Ok(())
        })
        .await?;
        if let Some(mut handle) = outer {
            handle.join().await?;
        }
        Ok(())
    })
}
