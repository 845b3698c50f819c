//! Making a ring: what the kernel must have, what is asked of it, and why it may refuse.
//!
//! The floor is Linux 5.19, for provided buffers; what is newer is asked for and done without. That
//! the kernel claims a feature does not say that the feature works, for distributions carry both
//! features and faults back to older kernels: so the driver tries out what it builds on before it
//! is handed out.

use std::io;
use std::time::Duration;

use io_uring::IoUring;
use socket2::{Domain, Socket, Type};

use super::Uring;
use super::ring::Ring;
use crate::driver::{Completed, Driver, DriverStatistics, Key, Token, Wait};
use crate::fd::Descriptor;
use crate::op::{Receive, is_cancelled};

/// Completions that find room, for each submission that does; an operation in flight has left the
/// queue of submissions long ago. Beyond that the kernel keeps them, which is slower.
const COMPLETIONS_PER_SUBMISSION: u32 = 16;
const COMPLETIONS_MIN: u32 = 4096;

/// What the kernel is asked for, beside what 5.19 has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rung {
    /// One level of indirection less in the queue of submissions. Since 6.6.
    no_sqarray: bool,
    /// Completions are worked on in our calls only, and never interrupt. Since 6.1.
    defer_taskrun: bool,
    /// One thread submits, so the kernel need not lock against others. Since 6.0.
    single_issuer: bool,
}

/// From the newest kernel to the oldest.
const LADDER: [Rung; 4] = [
    Rung {
        no_sqarray: true,
        defer_taskrun: true,
        single_issuer: true,
    },
    Rung {
        no_sqarray: false,
        defer_taskrun: true,
        single_issuer: true,
    },
    Rung {
        no_sqarray: false,
        defer_taskrun: false,
        single_issuer: true,
    },
    Rung {
        no_sqarray: false,
        defer_taskrun: false,
        single_issuer: false,
    },
];

/// Makes a ring with room for `entries` submissions.
pub(super) fn ring(entries: u32) -> io::Result<Ring> {
    let ring = climb_down(|rung| build(rung, entries)).map_err(|error| explain(&error))?;
    let parameters = ring.params();
    let floor = [
        parameters.is_feature_nodrop(),
        parameters.is_feature_fast_poll(),
        parameters.is_feature_ext_arg(),
        parameters.is_feature_skip_cqe_on_success(),
    ];
    if floor.contains(&false) {
        return Err(too_old());
    }
    Ok(Ring::new(ring))
}

/// The first rung that the kernel does not call invalid.
fn climb_down<T>(mut build: impl FnMut(Rung) -> io::Result<T>) -> io::Result<T> {
    let mut refusal = None;
    for rung in LADDER {
        match build(rung) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refusal = Some(error),
            result => return result,
        }
    }
    Err(refusal.unwrap_or_else(too_old))
}

fn build(rung: Rung, entries: u32) -> io::Result<IoUring> {
    let completions = entries
        .saturating_mul(COMPLETIONS_PER_SUBMISSION)
        .max(COMPLETIONS_MIN);
    let mut builder = IoUring::builder();
    builder
        .setup_clamp()
        .setup_cqsize(completions)
        .setup_submit_all()
        // No interrupt when there is work to do, but a flag, which a poll looks at before it calls.
        .setup_coop_taskrun()
        .setup_taskrun_flag();
    if rung.no_sqarray {
        builder.setup_no_sqarray();
    }
    if rung.defer_taskrun {
        builder.setup_defer_taskrun();
    }
    if rung.single_issuer {
        builder.setup_single_issuer();
    }
    builder.build(entries.max(1))
}

/// Lets the kernel choose among the blocks of the driver.
pub(super) fn register(driver: &Uring) -> io::Result<()> {
    let blocks = &driver.blocks;
    let address = blocks.entries_address();
    // SAFETY: the address is that of as many entries, initialised and page-aligned as the start of
    // a mapping, which the driver keeps until the registration has ended: its `drop` sees to that.
    let registered = unsafe {
        driver.ring.submitter().register_buf_ring_with_flags(
            address,
            blocks.count(),
            super::buffers::GROUP,
            0,
        )
    };
    registered.map_err(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => too_old(),
        _ => explain(&error),
    })
}

/// Tries out what everything builds on: bytes arrive in a provided block, a wait ends when its time
/// is up, and a cancel ends what waits.
pub(super) fn self_test(driver: &mut Uring) -> io::Result<()> {
    const PATTERN: &[u8] = b"a block chosen by the kernel";
    let (near, far) =
        Socket::pair(Domain::UNIX, Type::STREAM, None).map_err(|error| explain(&error))?;
    let near = Descriptor::from_socket(near)?;

    let key = driver.submit(Receive::new(near.clone()).into(), Token(0));
    far.send(PATTERN)?;
    await_one(driver, "a receive")?;
    let bytes = received(driver, key)?;
    let exhausted = driver.statistics().buffers_exhausted > 0;
    if bytes.as_deref().ok() != Some(PATTERN) || exhausted {
        return Err(broken("a receive into a provided block"));
    }

    // On the other side, which has not received: it has no feed, so the cancel is one of the kernel.
    let far = Descriptor::from_socket(far)?;
    let key = driver.submit(Receive::new(far).into(), Token(0));
    driver.turn(Wait::For(Duration::from_micros(1)), &mut Vec::new())?;
    driver.cancel(key);
    await_one(driver, "a cancel")?;
    if !received(driver, key)?.is_err_and(|error| is_cancelled(&error)) {
        return Err(broken("a cancel"));
    }

    driver.table.statistics = DriverStatistics::default();
    Ok(())
}

/// Turns until an operation ends. What is tried here takes microseconds, so after the bound below
/// it is not going to happen.
fn await_one(driver: &mut Uring, what: &str) -> io::Result<()> {
    const TURNS: u32 = 10;
    let mut completed: Vec<Completed> = Vec::new();
    for _ in 0..TURNS {
        driver.turn(Wait::For(Duration::from_millis(100)), &mut completed)?;
        if !completed.is_empty() {
            return Ok(());
        }
    }
    Err(broken(what))
}

fn received(driver: &mut Uring, key: Key) -> io::Result<io::Result<crate::buf::Lease>> {
    let finished = driver.take(key);
    finished
        .map(crate::op::Finished::into_received)
        .ok_or_else(|| broken("a receive"))
}

fn broken(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!(
            "io_uring of this kernel does not work: {what} did not do what it should; use a newer kernel"
        ),
    )
}

fn too_old() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "io_uring of this kernel is too old: Linux 5.19 or later is needed",
    )
}

/// Says why the kernel gives no ring, and what to do about it.
pub(super) fn explain(error: &io::Error) -> io::Error {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
    explain_with(error, disabled.as_deref().map(str::trim))
}

/// Of the error and the value of `kernel.io_uring_disabled`, if the kernel has it (since 6.6).
fn explain_with(error: &io::Error, disabled: Option<&str>) -> io::Error {
    let reason = match error.raw_os_error() {
        Some(libc::EPERM) => match disabled {
            Some(value @ "1") => format!(
                "io_uring is switched off for unprivileged processes (kernel.io_uring_disabled is \
                 {value}): switch it on with `sysctl -w kernel.io_uring_disabled=0`, or run in the \
                 group that kernel.io_uring_group names"
            ),
            Some("0") | None => {
                let sysctl = disabled.unwrap_or("not there");
                format!(
                    "io_uring is forbidden by a seccomp filter, as in most containers \
                     (kernel.io_uring_disabled is {sysctl}): allow io_uring_setup, io_uring_enter \
                     and io_uring_register in the container's seccomp profile"
                )
            }
            Some(value) => format!(
                "io_uring is switched off (kernel.io_uring_disabled is {value}): switch it on with \
                 `sysctl -w kernel.io_uring_disabled=0`"
            ),
        },
        Some(libc::EACCES) => "io_uring is forbidden by a security module such as SELinux: allow \
                               it in the policy"
            .to_owned(),
        Some(libc::ENOSYS) => "this kernel has no io_uring, or a seccomp filter hides it: use \
                               Linux 5.19 or later, built with CONFIG_IO_URING"
            .to_owned(),
        Some(libc::ENOMEM) => "the kernel gives no memory for io_uring: raise the limit of locked \
                               memory (`ulimit -l`), or that of the container, or ask for fewer \
                               entries"
            .to_owned(),
        Some(libc::EMFILE | libc::ENFILE) => {
            "no descriptor is left for io_uring: raise the limit of open files (`ulimit -n`)"
                .to_owned()
        }
        Some(libc::EINVAL) => {
            "io_uring of this kernel is too old: Linux 5.19 or later is needed".to_owned()
        }
        _ => format!("io_uring cannot be set up: {error}"),
    };
    io::Error::new(error.kind(), reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel that knows what `newest` asks for, and nothing newer.
    fn rung_on(newest: Rung) -> io::Result<Rung> {
        climb_down(|rung| {
            let unknown = rung.no_sqarray && !newest.no_sqarray
                || rung.defer_taskrun && !newest.defer_taskrun
                || rung.single_issuer && !newest.single_issuer;
            if unknown {
                Err(io::Error::from_raw_os_error(libc::EINVAL))
            } else {
                Ok(rung)
            }
        })
    }

    #[test]
    fn every_kernel_gets_the_newest_rung_that_it_knows() {
        for rung in LADDER {
            assert_eq!(rung_on(rung).unwrap(), rung);
        }
    }

    #[test]
    fn every_rung_is_a_ring_that_this_kernel_makes() {
        let results: Vec<_> = LADDER.map(|rung| build(rung, 8)).into();
        assert!(
            results.iter().any(Result::is_ok),
            "{:?}",
            results[3].as_ref().err()
        );
        // Once a kernel knows a rung it knows all that are older.
        let first = results.iter().position(Result::is_ok).unwrap();
        assert!(results[first..].iter().all(Result::is_ok));
    }

    #[test]
    fn the_driver_works_on_every_rung() {
        for rung in LADDER {
            let Ok(ring) = build(rung, 8) else {
                continue; // this kernel is older than the rung
            };
            let mut driver = Uring::over(Ring::new(ring), 4).unwrap();
            self_test(&mut driver).unwrap();
            assert_eq!(driver.in_flight(), 0);
        }
    }

    #[test]
    fn only_an_invalid_argument_is_a_step_down() {
        let mut asked = 0;
        let result: io::Result<()> = climb_down(|_| {
            asked += 1;
            Err(io::Error::from_raw_os_error(libc::EPERM))
        });
        assert_eq!(asked, 1);
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EPERM));
        let result: io::Result<()> =
            climb_down(|_| Err(io::Error::from_raw_os_error(libc::EINVAL)));
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }

    /// The words for `code` hold `cause` and `remedy`, and the kind is that of the code.
    #[track_caller]
    fn explains(code: i32, disabled: Option<&str>, cause: &str, remedy: &str) {
        let error = io::Error::from_raw_os_error(code);
        let explained = explain_with(&error, disabled);
        assert_eq!(explained.kind(), error.kind());
        let text = explained.to_string();
        assert!(text.contains(cause), "{text}");
        assert!(text.contains(remedy), "{text}");
        assert!(!text.contains("  "), "{text}");
    }

    #[test]
    fn a_refusal_names_its_cause_and_the_remedy() {
        let sysctl = "sysctl -w kernel.io_uring_disabled=0";
        explains(libc::EPERM, Some("2"), "io_uring_disabled is 2", sysctl);
        explains(libc::EPERM, Some("1"), "io_uring_disabled is 1", sysctl);
        explains(libc::EPERM, Some("0"), "seccomp", "profile");
        explains(libc::EPERM, None, "seccomp", "profile");
        explains(libc::EACCES, Some("0"), "security module", "policy");
        explains(libc::ENOSYS, None, "no io_uring", "CONFIG_IO_URING");
        explains(libc::ENOMEM, Some("0"), "no memory", "ulimit -l");
        explains(libc::EMFILE, Some("0"), "no descriptor", "ulimit -n");
        explains(libc::EINVAL, None, "too old", "5.19");
        explains(libc::EIO, Some("0"), "cannot be set up", "os error 5");
    }
}
