//! TCP streams and listeners.

mod listener;
mod stream;

use std::cell::{Cell, Ref, RefCell};
use std::io;

pub use listener::{TcpListener, open_tcp_listeners};
pub use stream::{TcpStream, connect_tcp};
use trio_runtime::lowlevel::{Descriptor, Gate, is_cancelled};
use trio_runtime::{BrokenResource, BusyResource, ClosedResource, Error, Result};

/// A descriptor that may have been closed.
#[derive(Debug)]
struct Socket(RefCell<Option<Descriptor>>);

impl Socket {
    fn new(descriptor: Descriptor) -> Self {
        Self(RefCell::new(Some(descriptor)))
    }

    fn open(&self) -> Result<Descriptor> {
        self.get().map(|descriptor| descriptor.clone())
    }

    fn get(&self) -> Result<Ref<'_, Descriptor>> {
        Ref::filter_map(self.0.borrow(), Option::as_ref).map_err(|_| ClosedResource::new().into())
    }

    /// Lets go of the descriptor; it is closed when the last operation in flight on it has ended.
    fn close(&self) {
        let descriptor = self.0.borrow_mut().take();
        drop(descriptor);
    }

    fn is_closed(&self) -> bool {
        self.0.borrow().is_none()
    }

    /// An error of the system in the words of a stream.
    fn error(&self, error: io::Error) -> Error {
        if self.is_closed() || is_cancelled(&error) {
            return ClosedResource::new().into();
        }
        BrokenResource::because(error).into()
    }
}

/// One direction of a socket: who uses it, and how it is closed on whoever waits in it.
#[derive(Debug, Default)]
struct Lane {
    busy: Cell<bool>,
    gate: Gate,
}

impl Lane {
    /// Takes the direction until the guard goes.
    fn claim(&self) -> Result<Claim<'_>> {
        if self.busy.replace(true) {
            return Err(BusyResource::new().into());
        }
        Ok(Claim(self))
    }
}

struct Claim<'a>(&'a Lane);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.busy.set(false);
    }
}
