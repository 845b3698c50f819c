//! Cancel scopes: level-triggered cancellation by position.
//!
//! A scope goes around a future: [`CancelScope::enter`], [`move_on_after`], [`fail_after`]. Once it
//! is cancelled, by a call or by its deadline, every operation of this library inside it returns
//! [`Cancelled`], at once and again each time, until the future has ended. Then the scope removes
//! the cancellation from the result, unless an enclosing scope is cancelled too. Nothing is dropped
//! half-way: the code inside sees an error, cleans up, and returns.
//!
//! A [shield](CancelScope::shielded) keeps cancellations of enclosing scopes from what is inside.
//!
//! There is a gentler stage: a scope that is [drained](CancelScope::drain) asks the code inside to
//! finish, and is cancelled only when its grace period is over (`drain.rs`).

mod cancelled;
mod causes;
mod drain;
mod idle;
mod position;
mod scope;
mod scopes;
mod timeout;
mod tree;
mod waits;

pub use cancelled::{CancelSource, Cancelled};
pub(crate) use causes::Cause;
pub use drain::{UntilDraining, cleanup, is_draining, until_draining, wait_draining};
pub use idle::{Progress, fail_if_idle, move_on_if_idle};
pub(crate) use position::{After, Here, Position};
pub use scope::{CancelScope, Enter};
pub(crate) use scope::{given, without_cancellations};
pub use timeout::{FailAfter, MoveOn, fail_after, fail_at, move_on_after, move_on_at};
pub(crate) use tree::{Effects, Entry, Left, Lists, ROOT, Tree};
