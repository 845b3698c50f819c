//! A request to stop that reaches every thread: the end of file of a pair of sockets, which any
//! number of runs can wait for.

use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use trio::Result;
use trio::lowlevel::{Descriptor, Interest, Ready, submit};

/// Whether the server has been asked to stop.
pub(crate) struct Stop {
    ours: UnixStream,
    /// Readable once ours has been shut down.
    theirs: UnixStream,
}

impl Stop {
    /// Not requested yet.
    pub(crate) fn new() -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok(Self { ours, theirs })
    }

    /// Waits until a stop is requested.
    pub(crate) async fn requested(&self) -> Result<()> {
        let bell = Descriptor::from_file(OwnedFd::from(self.theirs.try_clone()?));
        submit(Ready::new(bell, Interest::Readable))
            .await?
            .into_ready()?;
        Ok(())
    }

    /// Requests a stop when the guard is dropped: at the end of a thread, however it ends.
    pub(crate) fn when_dropped(&self) -> StopGuard<'_> {
        StopGuard(self)
    }
}

/// See [`Stop::when_dropped`].
pub(crate) struct StopGuard<'a>(&'a Stop);

impl Drop for StopGuard<'_> {
    fn drop(&mut self) {
        // This can fail only if it has been done before.
        drop(self.0.ours.shutdown(Shutdown::Both));
    }
}
