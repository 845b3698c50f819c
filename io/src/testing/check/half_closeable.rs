//! The cases of a stream whose sending direction can be closed alone.

use trio_runtime::{BusyResource, ClosedResource, Result};

use super::one_way::{expect, is_at_end, meanwhile_cancelled, send_shared, together, wait_shared};
use super::two_way::check_two_way;
use super::{case, demand_error};
use crate::HalfCloseableStream;

pub(super) async fn check_half_closeable<A, B>(
    check: &str,
    make: &impl AsyncFn() -> Result<(A, B)>,
    make_clogged: &impl AsyncFn() -> Result<Option<(A, B)>>,
) -> Result<()>
where
    A: HalfCloseableStream,
    B: HalfCloseableStream,
    for<'a> &'a A: HalfCloseableStream,
    for<'a> &'a B: HalfCloseableStream,
{
    check_two_way(check, make, make_clogged).await?;
    let (one, other) = make().await?;
    case(
        check,
        "the end of file ends one direction",
        ends(one, other),
    )
    .await?;
    let (one, other) = make().await?;
    let name = "the end of file ends the other direction";
    case(check, name, ends(other, one)).await?;
    let (one, _other) = make().await?;
    let name = "a stream that was closed has no end of file to send";
    case(check, name, end_after_close(one)).await?;
    if let Some((one, _other)) = make_clogged().await? {
        let name = "the end of file cannot be sent while another task sends";
        case(check, name, end_under_send(&one)).await?;
    }
    if let Some((one, _other)) = make_clogged().await? {
        let name = "the end of file cannot be sent while another task waits to send";
        case(check, name, end_under_wait(&one)).await?;
    }
    Ok(())
}

async fn ends<A, B>(mut one: A, mut other: B) -> Result<()>
where
    A: HalfCloseableStream,
    B: HalfCloseableStream,
{
    let send = async {
        one.send_all(b"x").await?;
        one.send_eof().await
    };
    let receive = async {
        expect(&mut other, b"x").await?;
        is_at_end(&mut other).await
    };
    together(send, receive).await?;
    let what = "`send_all` after `send_eof`";
    demand_error::<ClosedResource>(what, one.send_all(b"y").await)?;
    one.send_eof().await?;
    one.send_eof().await?;
    is_at_end(&mut other).await?;
    // The other direction goes on, and ends by itself.
    for _ in 0..3 {
        together(other.send_all(b"answer"), expect(&mut one, b"answer")).await?;
    }
    together(other.send_eof(), is_at_end(&mut one)).await?;
    one.aclose().await?;
    other.aclose().await
}

async fn end_after_close<A: HalfCloseableStream>(mut one: A) -> Result<()> {
    one.aclose().await?;
    let what = "`send_eof` on a stream that was closed";
    demand_error::<ClosedResource>(what, one.send_eof().await)
}

async fn end_under_send<A>(one: &A) -> Result<()>
where
    for<'a> &'a A: HalfCloseableStream,
{
    let second = async {
        let what = "`send_eof` during `send_all`";
        demand_error::<BusyResource>(what, send_eof_shared(one).await)
    };
    let much = vec![0; 16 * 1024 * 1024];
    meanwhile_cancelled(send_shared(one, &much), second).await
}

async fn end_under_wait<A>(one: &A) -> Result<()>
where
    for<'a> &'a A: HalfCloseableStream,
{
    let second = async {
        let what = "`send_eof` during `wait_send_all_might_not_block`";
        demand_error::<BusyResource>(what, send_eof_shared(one).await)
    };
    meanwhile_cancelled(wait_shared(one), second).await
}

async fn send_eof_shared<A>(mut one: &A) -> Result<()>
where
    for<'a> &'a A: HalfCloseableStream,
{
    one.send_eof().await
}
