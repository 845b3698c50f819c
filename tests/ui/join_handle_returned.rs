//! A handle cannot be the value of the block that its nursery lives in.

fn main() -> trio::Result<()> {
    trio::run(async {
        let handle = trio::open_nursery(async |nursery| {
            Ok(Some(nursery.spawn(async { Ok(1) })))
        })
        .await?;
        if let Some(mut handle) = handle {
            handle.join().await?;
        }
        Ok(())
    })
}
