//! The output of a process, line by line, without waiting for ever for the next line.

use std::io::Read;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The lines of a pipe.
pub(crate) struct Lines<R> {
    pipe: R,
    /// What has been read but not returned.
    rest: Vec<u8>,
}

impl<R: Read + AsFd> Lines<R> {
    /// The lines that come out of `pipe`.
    pub(crate) fn new(pipe: R) -> Self {
        let rest = Vec::new();
        Self { pipe, rest }
    }

    /// The next line, without its end.
    ///
    /// # Panics
    ///
    /// If none comes.
    #[track_caller]
    pub(crate) fn next(&mut self) -> String {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return text(&line[..end]);
            }
            assert!(self.read_more(), "the process has ended without a line");
        }
    }

    /// Everything that is still to come.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> String {
        while self.read_more() {}
        text(&std::mem::take(&mut self.rest))
    }

    /// Reads what there is; `false` at the end.
    #[track_caller]
    fn read_more(&mut self) -> bool {
        let mut wanted = [PollFd::new(&self.pipe, PollFlags::IN)];
        let patience = Timespec::try_from(PATIENCE).unwrap();
        assert_eq!(
            poll(&mut wanted, Some(&patience)),
            Ok(1),
            "the process has said nothing for {PATIENCE:?} after {:?}",
            text(&self.rest)
        );
        let mut buffer = [0; 4096];
        let count = self.pipe.read(&mut buffer).unwrap();
        self.rest.extend_from_slice(&buffer[..count]);
        count > 0
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A test that waits for longer has failed; nothing else depends on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
