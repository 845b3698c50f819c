//! A child outlives the locals of the body, which it therefore cannot borrow.

fn main() -> trio::Result<()> {
    trio::run(trio::open_nursery(async |nursery| {
        let local = String::from("of the body");
        nursery.start_soon(async {
            trio::checkpoint().await?;
            println!("{local}");
            Ok(())
        });
        Ok(())
    }))
}
