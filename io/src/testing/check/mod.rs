//! Whether a stream keeps the rules of [`crate::SendStream`] and its siblings: a list of cases, each
//! on a fresh stream.
//!
//! Each case has a time limit, by the clock of the run, after which it counts as hanging; so a
//! stream that forgets to wake a task is found instead of being waited for. A failure is a panic
//! that names the check, the case and what was observed. If `make` fails, or the check is
//! cancelled, an error is returned.

mod half_closeable;
mod one_way;
mod two_way;

use std::future::Future;
use std::time::Duration;

use trio_runtime::{CancelScope, Error, Result};

use self::half_closeable::check_half_closeable;
use self::one_way::check_one_way;
use self::two_way::check_two_way;
use crate::{HalfCloseableStream, ReceiveStream, SendStream, Stream};

/// Checks a stream that sends one way: `make` returns its two ends, new each time.
///
/// `make_clogged` returns two ends between which so much has been sent that a further send waits,
/// and `wait_send_all_might_not_block` too; or `None` if the stream cannot get into that state, in
/// which case the checks that need it are left out.
///
/// The ends are used by several tasks at once, through references, so that it can be seen what
/// happens when two use the same direction, or one closes what another waits in: implement the
/// traits for `&YourStream` as well.
///
/// It checks that data arrives, in order and complete, in whatever form it was sent; that an empty
/// send does no harm; that an empty buffer is refused; that every operation is a checkpoint; that a
/// second user of a direction is refused; that closing does what the traits say, gracefully,
/// forcefully, cancelled, repeated, while a task waits, and as seen from the other side; and that a
/// cancelled operation leaves a stream that can be closed.
///
/// # Cancellation
///
/// May be cancelled at any point.
///
/// # Errors
///
/// Those of `make` and `make_clogged`, and `Cancelled`.
///
/// # Panics
///
/// If the stream breaks a rule; the message says which. A case that takes more than ten seconds on
/// the clock of the run counts as hanging; under a [`MockClock`](trio_runtime::testing::MockClock)
/// that jumps at once, only streams that wait for nothing outside the run can be checked.
///
/// # Examples
///
/// ```
/// # mod trio { pub use trio_runtime::*; pub mod io { pub use trio_io::*; } pub mod testing { pub use trio_io::testing::*; } }
/// # trio::run(async {
/// use trio::testing::{check_one_way_stream, memory_stream_one_way_pair};
///
/// check_one_way_stream(async || Ok(memory_stream_one_way_pair()), async || Ok(None)).await
/// # }).unwrap();
/// ```
pub async fn check_one_way_stream<S, R>(
    make: impl AsyncFn() -> Result<(S, R)>,
    make_clogged: impl AsyncFn() -> Result<Option<(S, R)>>,
) -> Result<()>
where
    S: SendStream,
    R: ReceiveStream,
    for<'a> &'a S: SendStream,
    for<'a> &'a R: ReceiveStream,
{
    check_one_way("check_one_way_stream", &make, &make_clogged).await
}

/// Checks a stream that sends both ways: everything of [`check_one_way_stream`] in both directions;
/// a mebibyte each way at the same time in pieces of random length; and that closing one end is the
/// end of file for the other. What `make_clogged` returns has to be clogged both ways.
///
/// # Cancellation
///
/// As for [`check_one_way_stream`].
///
/// # Errors
///
/// As for [`check_one_way_stream`].
///
/// # Panics
///
/// As for [`check_one_way_stream`].
///
/// # Examples
///
/// ```
/// # mod trio { pub use trio_runtime::*; pub mod io { pub use trio_io::*; } pub mod testing { pub use trio_io::testing::*; } }
/// # trio::run(async {
/// use trio::testing::{check_two_way_stream, memory_stream_pair};
///
/// check_two_way_stream(async || Ok(memory_stream_pair()), async || Ok(None)).await
/// # }).unwrap();
/// ```
pub async fn check_two_way_stream<A, B>(
    make: impl AsyncFn() -> Result<(A, B)>,
    make_clogged: impl AsyncFn() -> Result<Option<(A, B)>>,
) -> Result<()>
where
    A: Stream,
    B: Stream,
    for<'a> &'a A: Stream,
    for<'a> &'a B: Stream,
{
    check_two_way("check_two_way_stream", &make, &make_clogged).await
}

/// Checks a stream whose sending direction can be closed alone: everything of
/// [`check_two_way_stream`]; that the end of file arrives behind the data; that nothing can be sent
/// after it, but it may be sent again; that the other direction goes on; and that it is refused
/// while another task sends or waits to send.
///
/// # Cancellation
///
/// As for [`check_one_way_stream`].
///
/// # Errors
///
/// As for [`check_one_way_stream`].
///
/// # Panics
///
/// As for [`check_one_way_stream`].
///
/// # Examples
///
/// ```
/// # mod trio { pub use trio_runtime::*; pub mod io { pub use trio_io::*; } pub mod testing { pub use trio_io::testing::*; } }
/// # trio::run(async {
/// use trio::testing::{check_half_closeable_stream, lockstep_stream_pair};
///
/// // Without a buffer every fresh stream is clogged.
/// let make = async || Ok(lockstep_stream_pair());
/// check_half_closeable_stream(make, async || Ok(Some(lockstep_stream_pair()))).await
/// # }).unwrap();
/// ```
pub async fn check_half_closeable_stream<A, B>(
    make: impl AsyncFn() -> Result<(A, B)>,
    make_clogged: impl AsyncFn() -> Result<Option<(A, B)>>,
) -> Result<()>
where
    A: HalfCloseableStream,
    B: HalfCloseableStream,
    for<'a> &'a A: HalfCloseableStream,
    for<'a> &'a B: HalfCloseableStream,
{
    check_half_closeable("check_half_closeable_stream", &make, &make_clogged).await
}

/// How long a case may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs one case of `check`; a failure in it becomes a panic that names it.
async fn case(check: &str, name: &str, future: impl Future<Output = Result<()>>) -> Result<()> {
    let patience = CancelScope::with_timeout(PATIENCE);
    let result = patience.enter(future).await;
    let rules = |error: &Error| {
        let broken = error.leaves().filter(|leaf| leaf.is::<Broken>());
        let texts: Vec<String> = broken.map(ToString::to_string).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    };
    match result {
        // The timeout may have woken a task that then found what it was waiting for.
        _ if patience.cancel_called() => {
            panic!("{check}: {name}: nothing happened for {PATIENCE:?}")
        }
        Ok(_) => Ok(()),
        // The check itself has been cancelled.
        Err(error) if error.is_cancelled() => Err(error),
        Err(error) => match rules(&error) {
            Some(rules) => panic!("{check}: {name}: {rules}"),
            None => panic!("{check}: {name}: unexpected: {error:?}"),
        },
    }
}

/// A broken rule: returned as an error, not a panic, so that the tasks of the case end first.
#[derive(Debug)]
struct Broken(String);

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

/// `Ok` if `holds`; otherwise the error that `rule` is broken.
fn demand(holds: bool, rule: impl Into<String>) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Broken(rule.into()).into())
}

/// Demands that `result`, of the operation `what`, is the error `E`. A cancellation is passed on.
fn demand_error<E: std::error::Error + 'static>(what: &str, result: Result<()>) -> Result<()> {
    let name = std::any::type_name::<E>();
    let name = name.rsplit("::").next().unwrap_or(name);
    match result {
        Err(error) if error.leaves().all(Error::is::<E>) => Ok(()),
        Err(error) if error.is_cancelled() => Err(error),
        Err(error) => Err(Broken(format!("{what} is to fail with {name}, not: {error:?}")).into()),
        Ok(()) => Err(Broken(format!("{what} is to fail with {name}, and it succeeded")).into()),
    }
}
