//! A nursery is not `'static`, and so nothing that has to be can hold it.

fn forever(_: &'static trio::Nursery<'static, 'static>) {}

fn main() -> trio::Result<()> {
    trio::run(trio::open_nursery(async |nursery| {
        forever(nursery);
        Ok(())
    }))
}
