//! The value of a child outlives the child, and cannot borrow its locals.

fn main() -> trio::Result<()> {
    trio::run(trio::open_nursery(async |nursery| {
        let mut handle = nursery.spawn(async {
            let local = String::from("of the child");
            Ok(local.as_str())
        });
        println!("{}", handle.join().await?);
        Ok(())
    }))
}
