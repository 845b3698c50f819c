//! A run has one clock.

#[trio::test(clock = "autojump", clock = "autojump")]
async fn it() {}

fn main() {}
