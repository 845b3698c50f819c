//! A test that is not asynchronous needs no run.

#[trio::test]
fn it() {}

fn main() {}
