//! What the tests share: the same body on every driver.

use std::future::Future;

use trio::testing::Simulation;
use trio::{Backend, Builder};

/// A builder for each driver, with its name.
pub(crate) fn builders() -> Vec<(&'static str, Builder)> {
    vec![
        ("io_uring", Builder::new().backend(Backend::IoUring)),
        ("polling", Builder::new().backend(Backend::Polling)),
        ("simulation", Builder::new().simulation(Simulation::new(1))),
    ]
}

/// Runs what `body` makes once on each driver, and says which one it was that failed.
pub(crate) fn on_every_driver<F>(body: impl Fn() -> F)
where
    F: Future<Output = trio::Result<()>>,
{
    for (name, builder) in builders() {
        if let Err(error) = builder.run(body()) {
            panic!("on {name}: {error:?}");
        }
    }
}
