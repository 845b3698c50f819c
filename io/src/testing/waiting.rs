//! How a stream that lives in memory waits for its other side.

use trio_runtime::Result;
use trio_runtime::lowlevel::ParkingLot;

/// Those who wait until something has changed.
#[derive(Debug, Default)]
pub(super) struct Waiting(ParkingLot);

impl Waiting {
    /// Lets everybody look again.
    pub(super) fn wake(&self) {
        self.0.unpark_all();
    }

    /// Waits until `look` finds something. What it finds goes before a cancellation.
    pub(super) async fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> Result<T> {
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            self.0.park().await?;
        }
    }
}
