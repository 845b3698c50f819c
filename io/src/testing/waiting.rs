//! How a stream that lives in memory waits for its other side.

use trio_runtime::Result;
use trio_runtime::lowlevel::ParkingLot;

/// The tasks that wait until something has changed.
#[derive(Debug, Default)]
pub(super) struct Waiting(ParkingLot);

impl Waiting {
    /// Makes all of them check again.
    pub(super) fn wake(&self) {
        self.0.unpark_all();
    }

    /// Waits until `look` finds something, which takes precedence over a cancellation.
    pub(super) async fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> Result<T> {
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            self.0.park().await?;
        }
    }
}
