//! Closing without waiting for anybody.

use trio_runtime::{CancelScope, Result};

use crate::AsyncResource;

/// Closes `resource` at once, without whatever a graceful close would wait for: runs its
/// [`aclose`](AsyncResource::aclose) in a scope that has already been cancelled.
///
/// # Cancellation
///
/// Closes in any case.
///
/// # Errors
///
/// What went wrong while closing, other than the cancellation that this function made.
pub async fn aclose_forcefully(resource: &mut impl AsyncResource) -> Result<()> {
    let scope = CancelScope::new();
    scope.cancel("forceful close");
    scope.enter(resource.aclose()).await?;
    Ok(())
}
