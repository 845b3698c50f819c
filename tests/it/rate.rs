//! Rate limits (RL).

use std::cell::RefCell;
use std::time::Duration;

use trio::testing::wait_all_tasks_blocked;
use trio::{
    RateLimiter, Result, checkpoint, current_time, join_all, map_concurrent, move_on_after,
    open_nursery, sleep,
};

use crate::support::secs;

#[trio::test(backend = "all", clock = "autojump")]
async fn rl1_permits_grow_at_an_even_pace_and_up_to_a_burst() -> Result<()> {
    let limiter = RateLimiter::new(1, secs(2));
    assert_eq!(five_times(&limiter).await?, [0, 2, 4, 6, 8]);
    let limiter = RateLimiter::new(2, secs(4)).burst(3);
    assert_eq!(five_times(&limiter).await?, [0, 0, 0, 2, 4]);
    // Three accrue again in six seconds, and no more.
    sleep(secs(60)).await?;
    assert!(limiter.try_acquire() && limiter.try_acquire() && limiter.try_acquire());
    assert!(!limiter.try_acquire());
    assert_eq!(limiter.statistics().acquired, 8);
    Ok(())
}

/// The times of five permits, in seconds from now.
async fn five_times(limiter: &RateLimiter) -> Result<Vec<u64>> {
    let start = current_time();
    let mut times = Vec::new();
    for _ in 0..5 {
        limiter.acquire().await?;
        times.push((current_time() - start).as_secs());
    }
    Ok(times)
}

#[test]
#[should_panic(expected = "a rate of zero")]
fn rl1_a_rate_of_zero_is_refused() {
    drop(RateLimiter::new(0, secs(1)));
}

#[trio::test(clock = "autojump")]
async fn rl2_first_come_first_served_and_nobody_overtakes() -> Result<()> {
    let limiter = RateLimiter::new(1, secs(1));
    let order = RefCell::new(Vec::new());
    limiter.acquire().await?;
    open_nursery(async |nursery| {
        for n in 0..4 {
            let (limiter, order) = (&limiter, &order);
            nursery.start_soon(async move {
                limiter.acquire().await?;
                order.borrow_mut().push(n);
                Ok(())
            });
        }
        wait_all_tasks_blocked(Duration::ZERO).await?;
        assert_eq!(limiter.statistics().tasks_waiting, 4);
        sleep(Duration::from_millis(2500)).await?;
        assert!(!limiter.try_acquire(), "others wait");
        Ok(())
    })
    .await?;
    assert_eq!(order.into_inner(), [0, 1, 2, 3]);
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn rl3_whoever_gives_up_takes_no_permit_along() -> Result<()> {
    let limiter = RateLimiter::new(1, secs(10));
    let start = current_time();
    limiter.acquire().await?;
    let impatient = async || move_on_after(secs(5), limiter.acquire()).await;
    let patient = async || limiter.acquire().await.map(Some);
    let attempts = [0, 1, 2].map(async |n| {
        if n == 0 {
            impatient().await
        } else {
            patient().await
        }
    });
    let outcomes = join_all(attempts).await?;
    assert!(matches!(
        outcomes[..],
        [Ok(None), Ok(Some(())), Ok(Some(()))]
    ));
    assert_eq!(current_time() - start, secs(20));
    {
        let mut dropped = Box::pin(limiter.acquire());
        assert!(futures::poll!(dropped.as_mut()).is_pending());
    }
    assert_eq!(limiter.statistics().tasks_waiting, 0);
    limiter.acquire().await?;
    assert_eq!(current_time() - start, secs(30));
    Ok(())
}

#[trio::test(clock = "autojump")]
#[allow(clippy::mem_forget)] // it is what is tested
async fn rl3_who_is_forgotten_half_way_holds_up_nobody() -> Result<()> {
    let limiter = RateLimiter::new(1, secs(10));
    let start = current_time();
    let forget = || {
        let mut forgotten = Box::pin(limiter.acquire());
        async move {
            assert!(futures::poll!(forgotten.as_mut()).is_pending());
            std::mem::forget(forgotten);
        }
    };
    limiter.acquire().await?;
    // At the head of the line, in the middle, twice in a row, and at the end.
    let times = RefCell::new(Vec::new());
    open_nursery(async |nursery| {
        for forgotten in [1, 0, 2, 1] {
            for _ in 0..forgotten {
                forget().await;
            }
            let (limiter, times) = (&limiter, &times);
            nursery.start_soon(async move {
                limiter.acquire().await?;
                times.borrow_mut().push((current_time() - start).as_secs());
                Ok(())
            });
            wait_all_tasks_blocked(Duration::ZERO).await?;
        }
        forget().await;
        Ok(())
    })
    .await?;
    let times = times.into_inner();
    assert_eq!(times.len(), 4);
    assert!(times.is_sorted(), "in order: {times:?}");
    assert!(
        times.windows(2).all(|pair| pair[1] - pair[0] >= 10),
        "at the pace: {times:?}"
    );
    assert!(
        times[3] <= 80,
        "when it would have been their turn: {times:?}"
    );
    // Only the forgotten one is left, and its time has come as well.
    sleep(secs(100)).await?;
    assert_eq!(limiter.statistics().tasks_waiting, 0);
    let mut turns = 0;
    while !limiter.try_acquire() {
        turns += 1;
        assert!(turns < 5, "it is passed over");
        checkpoint().await?;
    }
    limiter.acquire().await
}

#[trio::test(clock = "autojump")]
async fn rl4_it_goes_with_a_map() -> Result<()> {
    let limiter = RateLimiter::new(5, secs(1));
    let start = current_time();
    map_concurrent(0..11, 100, async |_| limiter.acquire().await).await?;
    assert_eq!(current_time() - start, secs(2));
    Ok(())
}
