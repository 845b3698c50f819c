//! What a child borrows mutably cannot be touched before the nursery has ended.

fn main() -> trio::Result<()> {
    trio::run(async {
        let mut count = 0;
        trio::open_nursery(async |nursery| {
            nursery.start_soon(async {
                count += 1;
                trio::checkpoint().await
            });
            println!("{count}");
            Ok(())
        })
        .await
    })
}
