//! Every order in which the threads of a few small programs can meet: run by `cargo xtask loom`.
//!
//! A lost wake shows as a deadlock, which loom finds; everything else is asserted.

use std::borrow::Cow;
use std::sync::Arc as Shared;
use std::sync::atomic::AtomicUsize as Count;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use super::inbox::{CallKey, Inbox, Queued};
use super::pool::{Job, Pool, Worker};
use super::pulse::Pulse;
use super::reply::reply;
use super::sync::{Condvar, Mutex, lock};

/// What a driver or a watchdog sleeps in: a wake that comes before the sleep ends it. (The parking
/// of loom's own threads mishandles a wake that comes while they are joined.)
#[derive(Default)]
struct Parker {
    called: Mutex<bool>,
    call: Condvar,
}

impl Parker {
    fn unpark(&self) {
        *lock(&self.called) = true;
        self.call.notify_one();
    }

    fn park(&self) {
        let mut called = lock(&self.called);
        while !*called {
            called = self.call.wait(called).unwrap();
        }
        *called = false;
    }
}

/// A run that sleeps when there is no news, until `enough` says that it has seen everything.
fn turn_until(
    inbox: &Inbox<u32, u32>,
    parker: &Parker,
    mut each: impl FnMut(&[u32], &[u32]),
    mut enough: impl FnMut() -> bool,
) {
    let (mut wakes, mut calls) = (Vec::new(), Vec::new());
    loop {
        if inbox.has_news() {
            inbox.collect(&mut wakes, &mut calls);
            each(&wakes, &calls);
            wakes.clear();
            calls.clear();
        } else if enough() {
            return;
        } else {
            parker.park();
        }
    }
}

#[test]
fn whatever_is_pushed_wakes_a_run_that_sleeps() {
    loom::model(|| {
        let inbox = Arc::new(Inbox::new());
        let run = Arc::new(Parker::default());
        let push = |push: fn(&Inbox<u32, u32>) -> bool| {
            let (inbox, run) = (inbox.clone(), run.clone());
            thread::spawn(move || {
                if push(&inbox) {
                    run.unpark();
                }
            })
        };
        let threads = [
            push(|inbox| inbox.push_wake(1)),
            push(|inbox| inbox.push_call(2, None).unwrap()),
        ];
        let seen = std::cell::Cell::new(0);
        turn_until(
            &inbox,
            &run,
            |wakes, calls| seen.set(seen.get() + wakes.len() + calls.len()),
            || seen.get() == 2,
        );
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn what_was_accepted_is_there_when_the_inbox_is_closed() {
    loom::model(|| {
        let inbox = Arc::new(Inbox::<u32, u32>::new());
        let other = inbox.clone();
        let pushing = thread::spawn(move || {
            let accepted = |call| usize::from(other.push_call(call, None).is_ok());
            accepted(1) + accepted(2)
        });
        let (mut wakes, mut calls) = (Vec::new(), Vec::new());
        inbox.collect(&mut wakes, &mut calls);
        let last = inbox.close().1;
        let accepted = pushing.join().unwrap();
        assert_eq!(calls.len() + last.len(), accepted);
        assert!(inbox.push_call(3, None).is_err());
    });
}

#[test]
fn a_call_with_a_key_begins_after_each_who_asked_for_it() {
    loom::model(|| {
        let inbox = Arc::new(Inbox::<u32, u32>::new());
        let key = CallKey::of::<u8>(0);
        let asked = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let threads = asked.clone().map(|asked| {
            let inbox = inbox.clone();
            thread::spawn(move || {
                asked.store(true, Ordering::Relaxed);
                inbox.push_call(0, Some(key)).unwrap();
            })
        });
        let mut seen = [false; 2];
        let mut begin = |calls: &[u32]| {
            for _ in calls {
                inbox.begin(&key);
                for (seen, asked) in seen.iter_mut().zip(&asked) {
                    *seen |= asked.load(Ordering::Relaxed);
                }
            }
        };
        let (mut wakes, mut calls) = (Vec::new(), Vec::new());
        inbox.collect(&mut wakes, &mut calls);
        begin(&calls);
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        begin(&inbox.close().1);
        assert_eq!(seen, [true; 2]);
    });
}

#[test]
fn a_wake_that_finds_one_queued_is_seen_by_the_poll_that_this_brings() {
    loom::model(|| {
        let inbox = Arc::new(Inbox::<u32, u32>::new());
        let queued = Arc::new(Queued::default());
        let run = Arc::new(Parker::default());
        let news = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let threads = news.clone().map(|news| {
            let (inbox, queued, run) = (inbox.clone(), queued.clone(), run.clone());
            thread::spawn(move || {
                news.store(true, Ordering::Relaxed);
                if queued.claim() && inbox.push_wake(0) {
                    run.unpark();
                }
            })
        });
        let seen = std::cell::Cell::new(0);
        turn_until(
            &inbox,
            &run,
            |wakes, _| {
                for _ in wakes {
                    queued.release();
                    // The poll.
                    let all = news.iter().filter(|news| news.load(Ordering::Relaxed));
                    seen.set(all.count());
                }
            },
            || seen.get() == 2,
        );
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    });
}

/// A job that counts.
struct Counting {
    worked: Shared<Count>,
    delivered: Shared<Count>,
}

impl Job for Counting {
    fn name(&self) -> Cow<'_, str> {
        "counting".into()
    }

    fn work(&mut self) {
        self.worked.fetch_add(1, Ordering::SeqCst);
    }

    fn deliver(self: Box<Self>) {
        self.delivered.fetch_add(1, Ordering::SeqCst);
    }
}

fn job(worked: &Shared<Count>) -> Box<dyn Job> {
    Box::new(Counting {
        worked: worked.clone(),
        delivered: worked.clone(),
    })
}

/// Does a job as a worker would.
fn serve(mut job: Box<dyn Job>) {
    job.work();
    job.deliver();
}

#[test]
fn a_job_that_meets_a_thread_about_to_end_is_done_once() {
    loom::model(|| {
        let pool = Arc::new(Pool::new());
        let worker = Arc::new(Worker::default());
        pool.add_idle(&worker);
        let done = Shared::new(Count::new(0));
        let idle = {
            let (pool, worker) = (pool.clone(), worker.clone());
            // It has waited long enough.
            thread::spawn(move || pool.retire(&worker).map(serve).is_some())
        };
        let refused = pool.assign(job(&done));
        let another = refused.map(serve).is_some();
        let served = idle.join().unwrap();
        assert_ne!(served, another, "one of the two has done it");
        assert_eq!(done.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn two_jobs_for_one_idle_thread_are_both_done() {
    loom::model(|| {
        let pool = Arc::new(Pool::new());
        let worker = Arc::new(Worker::default());
        pool.add_idle(&worker);
        let done = Shared::new(Count::new(0));
        let threads = [(); 2].map(|()| {
            let (pool, done) = (pool.clone(), done.clone());
            thread::spawn(move || pool.assign(job(&done)).map(serve).is_some())
        });
        serve(worker.take());
        let another = threads.map(|thread| thread.join().unwrap());
        assert!(another[0] != another[1], "the thread was given one of them");
        assert_eq!(done.load(Ordering::SeqCst), 4);
    });
}

#[test]
fn an_answer_wakes_who_blocks_for_it_and_so_does_its_loss() {
    loom::model(|| {
        let (replier, answer) = reply();
        let (lost, never) = reply::<u32>();
        let run = thread::spawn(move || {
            replier.send(7);
            drop(lost);
        });
        assert_eq!(answer.wait(), Some(7));
        assert_eq!(never.wait(), None);
        run.join().unwrap();
    });
}

#[test]
fn a_run_that_begins_to_work_is_seen_by_its_watchdog() {
    loom::model(|| {
        let pulse = Arc::new(Pulse::new());
        let watchdog = Arc::new(Parker::default());
        let (run, sleeper) = (pulse.clone(), watchdog.clone());
        let working = thread::spawn(move || {
            // At rest before, and again before it works for a longer time.
            for unpark in [run.begin(), run.rest(), run.begin()] {
                if unpark {
                    sleeper.unpark();
                }
            }
        });
        // A watchdog that sleeps through the last of these would never see the third change.
        loop {
            let turn = pulse.turn();
            if turn / 4 == 3 {
                break;
            }
            if Pulse::is_at_rest(turn) && pulse.fall_asleep(turn) {
                watchdog.park();
            } else {
                thread::yield_now();
            }
        }
        working.join().unwrap();
    });
}
