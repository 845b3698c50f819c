//! A nursery cannot be taken out of its block through a variable around it.

fn main() -> trio::Result<()> {
    trio::run(async {
        let mut outer: Option<&trio::Nursery<'_, '_>> = None;
        trio::open_nursery(async |nursery| {
            outer = Some(nursery);
            Ok(())
        })
        .await?;
        if let Some(nursery) = outer {
            nursery.start_soon(async { Ok(()) });
        }
        Ok(())
    })
}
