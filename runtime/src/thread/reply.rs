//! The answer that a thread blocks for.
//!
//! Whoever has to answer holds a [`Replier`]. If that is dropped without an answer, because the run
//! has ended or the task that should answer is gone, the thread learns that instead of waiting for
//! ever.

use std::sync::PoisonError;

use super::sync::{Arc, Condvar, Mutex, lock};

pub(super) struct Reply<R>(Arc<Slot<R>>);

pub(super) struct Replier<R>(Option<Arc<Slot<R>>>);

struct Slot<R> {
    answer: Mutex<Answer<R>>,
    given: Condvar,
}

enum Answer<R> {
    Owed,
    Given(R),
    /// There will be no answer.
    Never,
}

pub(super) fn reply<R>() -> (Replier<R>, Reply<R>) {
    let slot = Arc::new(Slot {
        answer: Mutex::new(Answer::Owed),
        given: Condvar::new(),
    });
    (Replier(Some(slot.clone())), Reply(slot))
}

impl<R> Reply<R> {
    /// Blocks until the answer comes; `None` if there will be none.
    pub(super) fn wait(self) -> Option<R> {
        let mut answer = lock(&self.0.answer);
        loop {
            match std::mem::replace(&mut *answer, Answer::Owed) {
                Answer::Given(value) => return Some(value),
                Answer::Never => return None,
                Answer::Owed => {
                    let given = self.0.given.wait(answer);
                    answer = given.unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

impl<R> Replier<R> {
    pub(super) fn send(mut self, value: R) {
        self.put(Answer::Given(value));
    }

    fn put(&mut self, answer: Answer<R>) {
        if let Some(slot) = self.0.take() {
            *lock(&slot.answer) = answer;
            slot.given.notify_one();
        }
    }
}

impl<R> Drop for Replier<R> {
    fn drop(&mut self) {
        self.put(Answer::Never);
    }
}
