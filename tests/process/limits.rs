//! Too few descriptors, and a kernel that offers no ring.

use std::cell::Cell;
use std::future::Future;
use std::io::Write;
use std::pin::Pin;
use std::process::Command;
use std::rc::Rc;
use std::thread;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use trio::sync::Borrower;
use trio::to_thread::ThreadLimiter;

use crate::client::{connect, expect, part, ping};
use crate::server::{Server, echo, output_of};

crate::on_both_backends! {
    without_descriptors_the_server_backs_off_and_loses_no_connection,
}

fn without_descriptors_the_server_backs_off_and_loses_no_connection(backend: &str) {
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""])
        .arg(echo().get_program())
        .args(["--backend", backend]);
    let mut server = Server::start_as(limited);
    let clients: Vec<_> = (0..100_u8).map(|_| connect(server.address)).collect();
    for (number, mut client) in (0..).zip(&clients) {
        client.write_all(&[number; 100]).unwrap();
    }
    let complaint = server.errors.next();
    let told = "trio: cannot accept (Too many open files (os error 24)); trying again in 100ms";
    assert_eq!(complaint, told);
    // Meanwhile those that were accepted are served, and each that ends makes room for another.
    for (number, client) in (0..).zip(clients) {
        expect(&client, &[number; 100]);
        part(client);
    }
    let client = connect(server.address);
    ping(&client, b"recovered");
    part(client);
    let ended = server.stop();
    assert_eq!(ended.code, Some(0));
    let told = "connections: 101 (101 ended, 0 failed, 0 cut off), bytes: 10009";
    assert!(ended.output.contains(told), "{}", ended.output);
}

#[test]
fn where_io_uring_is_forbidden_polling_takes_its_place_and_says_why() {
    let server = without_io_uring(|| Server::start("auto", &[]));
    let start = format!("listening tcp {} polling (io_uring is ", server.address);
    assert!(server.banner.starts_with(&start), "{}", server.banner);
    assert!(server.banner.contains("seccomp"), "{}", server.banner);
    let client = connect(server.address);
    ping(&client, b"all the same");
    part(client);
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn where_io_uring_is_forbidden_a_demo_tells_why_it_uses_another() {
    let mut command = echo();
    command.args(["--demo", "0.1"]);
    let ended = without_io_uring(|| output_of(command));
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    let reason = "\nnot io_uring, because io_uring is ";
    assert!(ended.output.contains(reason), "{}", ended.output);
}

#[test]
fn where_io_uring_is_forbidden_asking_for_it_fails_with_a_remedy() {
    let asked = |how: fn(&mut Command)| {
        let mut command = echo();
        command.args(["--tcp", "127.0.0.1:0"]);
        how(&mut command);
        let ended = without_io_uring(|| output_of(command));
        assert_eq!(ended.code, Some(1));
        assert_eq!(ended.output, "");
        let remedy = "allow io_uring_setup, io_uring_enter and io_uring_register";
        assert!(
            ended.errors.starts_with("echo: io_uring is "),
            "{}",
            ended.errors
        );
        assert!(ended.errors.contains(remedy), "{}", ended.errors);
    };
    asked(|command| {
        command.args(["--backend", "io_uring"]);
    });
    asked(|command| {
        command.env("TRIO_BACKEND", "io_uring");
    });
}

/// Hands out tokens, and counts those that are out.
#[derive(Default)]
struct Tokens(Cell<i32>);

impl ThreadLimiter for Tokens {
    fn acquire_on_behalf_of(
        self: Rc<Self>,
        _: Borrower,
    ) -> Pin<Box<dyn Future<Output = trio::Result<()>>>> {
        self.0.set(self.0.get() + 1);
        Box::pin(std::future::ready(Ok(())))
    }

    fn release_on_behalf_of(&self, _: Borrower) -> trio::Result<()> {
        self.0.set(self.0.get() - 1);
        Ok(())
    }
}

#[test]
fn w2_a_thread_that_cannot_begin_is_an_error_and_its_token_comes_back() {
    const CLONE: i64 = if cfg!(target_arch = "x86_64") {
        56
    } else {
        220
    };
    const CLONE3: i64 = 435;
    const EAGAIN: u32 = 11;
    without(&[CLONE, CLONE3], EAGAIN, || {
        trio::run(async {
            let tokens = Rc::new(Tokens::default());
            let call = trio::to_thread::run_sync(|| ()).limiter(tokens.clone());
            let error = call.await.expect_err("the system has no thread");
            let error = error.downcast::<std::io::Error>().expect("its own words");
            assert_eq!(error.raw_os_error(), Some(11));
            assert_eq!(tokens.0.get(), 0);
            assert_eq!(trio::testing::active_thread_count(), 0);
        });
    });
}

/// Calls `work` in a thread that cannot create a ring, as in most containers.
fn without_io_uring<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    /// The same on all architectures.
    const IO_URING_SETUP: i64 = 425;
    const EPERM: u32 = 1;
    without(&[IO_URING_SETUP], EPERM, work)
}

/// Calls `work` in a thread to which the kernel refuses these calls with this error.
fn without<T: Send>(calls: &[i64], error: u32, work: impl FnOnce() -> T + Send) -> T {
    let filter = SeccompFilter::new(
        calls.iter().map(|call| (*call, Vec::new())).collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(error),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let filter: BpfProgram = filter.unwrap().try_into().unwrap();
    // A filter stays with the thread and whatever it starts, so the thread is one that ends.
    thread::scope(|threads| {
        let filtered = threads.spawn(|| {
            apply_filter(&filter).unwrap();
            work()
        });
        filtered.join().unwrap()
    })
}
