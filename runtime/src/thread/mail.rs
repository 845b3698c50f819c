//! Messages between a thread and the task that waits for it.
//!
//! The thread leaves one request at a time, because it blocks until that is answered; the task
//! leaves word that it was cancelled. When the task stops waiting, it closes the box: a request
//! still in it is dropped, from which the thread learns that nobody will answer, and later requests
//! are returned.

use std::sync::Arc;

use super::from_thread::MakeLocal;
use super::inbox::{Call, Shared, Work};
use super::sync::{Mutex, lock};
use crate::cancel::Cancelled;

/// The call that a thread works for, whatever its return type.
pub(crate) trait Host: Send + Sync {
    fn mail(&self) -> &Mail;
}

pub(crate) struct Mail {
    shared: Arc<Shared>,
    /// The number of the call in its run.
    call: u32,
    state: Mutex<State>,
}

struct State {
    request: Option<Request>,
    /// Whether requests are refused.
    closed: bool,
    cancelled: Option<Cancelled>,
}

/// What a thread asks of the task that waits for it. Both variants send their own answer, and do
/// not panic.
pub(crate) enum Request {
    Sync(Work),
    Future(MakeLocal),
}

impl Mail {
    /// A box that takes requests, or one for a thread that nobody waits for.
    pub(super) fn new(shared: Arc<Shared>, call: u32, closed: bool) -> Self {
        Self {
            shared,
            call,
            state: Mutex::new(State {
                request: None,
                closed,
                cancelled: None,
            }),
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn number(&self) -> u32 {
        self.call
    }

    /// Leaves a request for the task; returns it if it is refused.
    pub(super) fn ask(&self, request: Request) -> Result<(), Request> {
        {
            let mut state = lock(&self.state);
            if state.closed {
                return Err(request);
            }
            debug_assert!(state.request.is_none(), "a thread waits for its answer");
            state.request = Some(request);
        }
        // If the run is over, it has closed the box by now or is about to: the missing answer says
        // so.
        let _ = self.shared.call(Call::Thread {
            call: self.call,
            ended: false,
        });
        Ok(())
    }

    pub(super) fn take_request(&self) -> Option<Request> {
        lock(&self.state).request.take()
    }

    pub(super) fn close(&self) {
        let request = {
            let mut state = lock(&self.state);
            state.closed = true;
            state.request.take()
        };
        drop(request);
    }

    pub(super) fn set_cancelled(&self, cancelled: Cancelled) {
        lock(&self.state).cancelled = Some(cancelled);
    }

    pub(super) fn cancelled(&self) -> Option<Cancelled> {
        lock(&self.state).cancelled.clone()
    }
}
