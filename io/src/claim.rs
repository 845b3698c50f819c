//! One user at a time: how a stream notices that two tasks use the same direction of it.

use std::cell::Cell;

use trio_runtime::{BusyResource, Result};

/// Whether a task is using the direction that this stands for.
#[derive(Debug, Default)]
pub(crate) struct Claims(Cell<bool>);

impl Claims {
    /// Takes the direction until the guard is dropped; `BusyResource` if it is taken.
    pub(crate) fn claim(&self) -> Result<Claim<'_>> {
        if self.0.replace(true) {
            return Err(BusyResource::new().into());
        }
        Ok(Claim(self))
    }
}

/// The right to use a direction; dropping it returns it, forgetting it keeps everybody out.
#[must_use = "the direction is free again when this is dropped"]
pub(crate) struct Claim<'a>(&'a Claims);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.0.set(false);
    }
}
