//! A value that an option does not know is answered with those that it does.

#[trio::test(clock = "mock")]
async fn it() {}

fn main() {}
