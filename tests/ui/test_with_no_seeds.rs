//! A test that runs under no seed would pass whatever it does.

#[trio::test(seeds = 0)]
async fn it() {}

fn main() {}
