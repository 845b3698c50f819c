//! A child of an outer nursery may outlive an inner one, and cannot use it.

fn main() -> trio::Result<()> {
    trio::run(trio::open_nursery(async |outer| {
        trio::open_nursery(async |inner| {
            outer.start_soon(async {
                inner.start_soon(async { Ok(()) });
                Ok(())
            });
            Ok(())
        })
        .await
    }))
}
