//! A nursery cannot be the value of its own block.

fn main() -> trio::Result<()> {
    trio::run(async {
        let nursery = trio::open_nursery(async |nursery| Ok(Some(nursery))).await?;
        if let Some(nursery) = nursery {
            nursery.start_soon(async { Ok(()) });
        }
        Ok(())
    })
}
