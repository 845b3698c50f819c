//! What the system knows of a thread: its name, and the processors that it may run on.

use std::io;

/// Gives this thread a name for the system's tools, cut to what the system takes (15 bytes under
/// Linux). Without effect where the system has no such thing.
pub fn name_thread(name: &str) {
    #[cfg(target_os = "linux")]
    {
        let mut bytes = [0; NAME_MAX + 1];
        let mut end = name.len().min(NAME_MAX);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        for (to, from) in bytes.iter_mut().zip(&name.as_bytes()[..end]) {
            // What is zero would end the name.
            *to = if *from == 0 { b'?' } else { *from };
        }
        if let Ok(name) = std::ffi::CStr::from_bytes_until_nul(&bytes) {
            // A thread without a name is no worse a thread.
            let _ = rustix::thread::set_name(name);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = name;
}

#[cfg(target_os = "linux")]
const NAME_MAX: usize = 15;

/// How many processors this thread may run on.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Keeps this thread on one of the processors that it may run on: the one with number `index`,
/// counted round.
///
/// # Errors
///
/// What the system said; `Unsupported` where it has no such thing.
pub fn pin_thread(index: usize) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
        let allowed = sched_getaffinity(None)?;
        let of_all: Vec<usize> = (0..CpuSet::MAX_CPU)
            .filter(|cpu| allowed.is_set(*cpu))
            .collect();
        let Some(cpu) = of_all.get(index % of_all.len().max(1)) else {
            return Err(io::Error::other("this thread may run nowhere"));
        };
        let mut only = CpuSet::new();
        only.set(*cpu);
        sched_setaffinity(None, &only)?;
        Ok(())
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = index;
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn name() -> String {
        let path = "/proc/thread-self/comm";
        let name = std::fs::read_to_string(path).expect("a thread can be read");
        name.trim_end().to_owned()
    }

    #[test]
    fn a_name_is_cut_to_what_the_system_takes() {
        let check = |given: &str, expected: &str| {
            name_thread(given);
            assert_eq!(name(), expected);
        };
        check("short", "short");
        check("a name with more than it takes", "a name with mor");
        check("zero\0inside", "zero?inside");
        // A letter is cut off whole.
        check("fourteen bytes\u{e9}", "fourteen bytes");
    }

    #[test]
    fn a_thread_that_is_pinned_may_run_on_one_processor() {
        std::thread::scope(|scope| {
            let pinned = scope.spawn(|| {
                pin_thread(usize::MAX).unwrap();
                processors()
            });
            assert_eq!(pinned.join().unwrap(), 1);
        });
    }
}
