//! What a child reports goes to its starter, and cannot borrow the child's locals.

fn main() -> trio::Result<()> {
    trio::run(trio::open_nursery(async |nursery| {
        let name: &str = nursery
            .start(async |status| {
                let local = String::from("of the child");
                status.started(local.as_str())?;
                trio::checkpoint().await
            })
            .await?;
        println!("{name}");
        Ok(())
    }))
}
