//! A test that runs under no seed would pass whatever it does.

#[trio::test(seeds = 0)]
async fn it_runs_under_no_seed() {}

fn main() {}
