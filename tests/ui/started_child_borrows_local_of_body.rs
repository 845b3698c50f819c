//! A child that was started goes on after the call, and cannot borrow locals of the body.

fn main() -> trio::Result<()> {
    trio::run(trio::open_nursery(async |nursery| {
        let local = String::from("of the body");
        let borrowed = &local;
        nursery
            .start(async move |status| {
                status.started(())?;
                println!("{borrowed}");
                Ok(())
            })
            .await
    }))
}
