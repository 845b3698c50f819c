//! An option that does not exist is answered with those that do.

#[trio::test(colour = "red")]
async fn it() {}

fn main() {}
