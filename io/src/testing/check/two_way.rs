//! The cases of a stream that sends both ways.

use trio_runtime::{Result, open_nursery};

use super::one_way::{check_one_way, is_at_end, together};
use super::{case, demand};
use crate::{ReceiveStream, SendStream, Stream};

pub(super) async fn check_two_way<A, B>(
    check: &str,
    make: &impl AsyncFn() -> Result<(A, B)>,
    make_clogged: &impl AsyncFn() -> Result<Option<(A, B)>>,
) -> Result<()>
where
    A: Stream,
    B: Stream,
    for<'a> &'a A: Stream,
    for<'a> &'a B: Stream,
{
    check_one_way(check, make, make_clogged).await?;
    let turned = async || {
        let (one, other) = make().await?;
        Ok((other, one))
    };
    let turned_clogged = async || {
        let ends = make_clogged().await?;
        Ok(ends.map(|(one, other)| (other, one)))
    };
    check_one_way(check, &turned, &turned_clogged).await?;
    let (one, other) = make().await?;
    let name = "data goes both ways at the same time";
    case(check, name, duplex(&one, &other)).await?;
    let (one, other) = make().await?;
    let name = "closing one end is the end of file for the other";
    case(check, name, closes(one, other)).await
}

/// How much is sent each way.
const AMOUNT: usize = 1024 * 1024;

/// The length of the longest piece.
const PIECE_MAX: u64 = 10_000;

/// Sends a mebibyte each way, in pieces of random length, which are the same each time.
async fn duplex<A, B>(one: &A, other: &B) -> Result<()>
where
    for<'a> &'a A: Stream,
    for<'a> &'a B: Stream,
{
    open_nursery(async |nursery| {
        nursery.start_soon(send_pieces(one, 1));
        nursery.start_soon(send_pieces(other, 2));
        nursery.start_soon(receive_pieces(other, 1));
        receive_pieces(one, 2).await
    })
    .await
}

async fn send_pieces<S>(mut to: &S, seed: u64) -> Result<()>
where
    for<'a> &'a S: Stream,
{
    let data = Random(seed).bytes(AMOUNT);
    let mut lengths = Random(seed + 100);
    let mut rest = &data[..];
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(lengths.length().min(rest.len()));
        to.send_all(piece).await?;
        rest = after;
    }
    Ok(())
}

async fn receive_pieces<R>(mut from: &R, seed: u64) -> Result<()>
where
    for<'a> &'a R: Stream,
{
    let expected = Random(seed).bytes(AMOUNT);
    let mut lengths = Random(seed + 200);
    let mut got = Vec::with_capacity(AMOUNT);
    while got.len() < AMOUNT {
        let mut buffer = vec![0; lengths.length().min(AMOUNT - got.len())];
        let count = from.receive_some(&mut buffer).await?;
        let rule = format!("the end of file came after {} bytes of {AMOUNT}", got.len());
        demand(count > 0, rule)?;
        got.extend_from_slice(&buffer[..count]);
    }
    demand(got == expected, "what arrived is not what was sent")
}

async fn closes<A: Stream, B: Stream>(mut one: A, mut other: B) -> Result<()> {
    let send = async {
        one.send_all(b"last words").await?;
        one.aclose().await
    };
    let receive = async {
        super::one_way::expect(&mut other, b"last words").await?;
        is_at_end(&mut other).await
    };
    together(send, receive).await?;
    other.aclose().await
}

/// SplitMix64, by Steele, Lea and Flood: random enough to be unlike anything that a stream might
/// expect.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut hash = self.0;
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^ (hash >> 31)
    }

    fn length(&mut self) -> usize {
        usize::try_from(1 + self.next() % PIECE_MAX).expect("it is small")
    }

    fn bytes(mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        for word in bytes.chunks_mut(8) {
            word.copy_from_slice(&self.next().to_le_bytes()[..word.len()]);
        }
        bytes
    }
}
