//! Too few descriptors, and a kernel that gives no ring.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Command;
use std::thread;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

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
    // Those that were accepted are served meanwhile, and each that ends makes room for another.
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

/// Calls `work`, whose processes cannot make a ring, as in most containers.
fn without_io_uring<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    /// The same on all architectures.
    const IO_URING_SETUP: i64 = 425;
    const EPERM: u32 = 1;
    let filter = SeccompFilter::new(
        BTreeMap::from([(IO_URING_SETUP, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(EPERM),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let filter: BpfProgram = filter.unwrap().try_into().unwrap();
    // A filter stays with the thread and what it starts, so the thread is one that ends.
    thread::scope(|threads| {
        let filtered = threads.spawn(|| {
            apply_filter(&filter).unwrap();
            work()
        });
        filtered.join().unwrap()
    })
}
