//! What the block of a nursery borrows mutably stays borrowed until its future has ended.

fn main() -> trio::Result<()> {
    trio::run(async {
        let mut count = 0;
        let block = trio::open_nursery(async |nursery| {
            nursery.start_soon(async {
                count += 1;
                Ok(())
            });
            Ok(())
        });
        println!("{count}");
        block.await
    })
}
