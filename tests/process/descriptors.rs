//! The descriptors of a process: none is left behind, and a server survives the lack of them.
//!
//! They can be counted only where nothing else runs, so each test starts this program again with
//! itself as the only test, and does its work there.

use std::fs::File;
use std::future::Future;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream as StdStream};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use futures::future::join;
use trio::lowlevel::{Accept, Family, socket, submit};
use trio::net::{Server, TcpListener, TcpStream, connect_tcp, open_tcp_listeners, serve_listeners};
use trio::testing::wait_all_tasks_blocked;
use trio::{Backend, Builder, Result, checkpoint, open_nursery};

/// Marks the process as the one in which the test happens.
const INSIDE: &str = "TRIO_TEST_PROCESS";

pub(crate) const BACKENDS: [Backend; 2] = [Backend::IoUring, Backend::Polling];

/// This program again, with only `test`, started by the shell command `before`.
pub(crate) fn again(test: &str, before: &str) -> Command {
    let mut command = Command::new("sh");
    let program = std::env::current_exe().unwrap();
    command
        .args(["-c", &format!("{before} exec \"$0\" \"$@\"")])
        .arg(program)
        .args(["--exact", test])
        .args(["--nocapture", "--test-threads=1"])
        .env(INSIDE, "yes");
    command
}

/// Whether this is the process in which the test happens.
pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs `body` in a process in which nothing else runs.
pub(crate) fn alone(test: &str, body: impl FnOnce()) {
    if is_inside() {
        body();
        return;
    }
    let output = again(test, "").output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The descriptors of this process, and what they are.
fn descriptors() -> Vec<String> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    let names = entries.filter_map(|entry| {
        let target = std::fs::read_link(entry.unwrap().path()).ok()?;
        // The descriptor through which the folder is read does not count.
        (!target.ends_with("fd")).then(|| target.to_string_lossy().into_owned())
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// Runs `body` on both backends, and compares the descriptors before and after.
#[track_caller]
fn check_no_descriptor_is_left<F>(body: impl Fn() -> F)
where
    F: Future<Output = Result<()>>,
{
    let before = descriptors();
    for backend in BACKENDS {
        for round in 0..3 {
            let result = Builder::new().backend(backend).run(body());
            result.unwrap_or_else(|error| panic!("on {backend}, round {round}: {error:?}"));
            assert_eq!(descriptors(), before, "on {backend}, round {round}");
        }
    }
}

pub(crate) async fn listen() -> Result<(TcpListener, SocketAddr)> {
    let listener = open_tcp_listeners((Ipv4Addr::LOCALHOST, 0))
        .await?
        .remove(0);
    let address = listener.local_address()?;
    Ok((listener, address))
}

pub(crate) async fn pair() -> Result<(TcpStream, TcpStream)> {
    let (listener, address) = listen().await?;
    let client = connect_tcp(address).await?;
    Ok((client, listener.accept().await?))
}

async fn echo(stream: TcpStream) -> Result<()> {
    while let Some(data) = stream.receive().await? {
        stream.send_all(data).await?;
    }
    Ok(())
}

/// Starts `future`, and forgets it while it waits.
#[allow(clippy::mem_forget)] // that is what is tested
async fn start_and_forget(future: impl Future) {
    let mut future = Box::pin(future);
    assert!(futures::poll!(&mut future).is_pending());
    std::mem::forget(future);
}

#[test]
fn d4_what_is_dropped_in_the_middle_leaves_no_descriptor() {
    alone(
        "descriptors::d4_what_is_dropped_in_the_middle_leaves_no_descriptor",
        || {
            check_no_descriptor_is_left(|| async {
                let (listener, address) = listen().await?;
                for turns in 0..50 {
                    let mut both = Box::pin(join(listener.accept(), connect_tcp(address)));
                    for _ in 0..turns {
                        if futures::poll!(&mut both).is_ready() {
                            break;
                        }
                        checkpoint().await?;
                    }
                }
                wait_all_tasks_blocked(Duration::ZERO).await?;
                // The descriptors that remain belong to the run, the listener, and its queue.
                let (client, server) = pair().await?;
                drop(futures::poll!(Box::pin(client.receive())));
                drop((client, server));
                Ok(())
            });
        },
    );
}

#[test]
fn d5_what_is_forgotten_leaves_no_descriptor_after_the_run() {
    alone(
        "descriptors::d5_what_is_forgotten_leaves_no_descriptor_after_the_run",
        || {
            check_no_descriptor_is_left(|| async {
                let (client, server) = pair().await?;
                start_and_forget(server.receive()).await;
                open_nursery(async |nursery| {
                    start_and_forget(client.receive()).await;
                    nursery.start_soon(async {
                        let listener = socket::stream(Family::V4)?;
                        socket::bind(&listener, &(Ipv4Addr::LOCALHOST, 0).into(), false)?;
                        socket::listen(&listener, 4)?;
                        start_and_forget(submit(Accept::new(listener))).await;
                        checkpoint().await
                    });
                    Ok(())
                })
                .await?;
                checkpoint().await
            });
        },
    );
}

#[test]
fn d6_a_panic_leaves_no_descriptor() {
    alone("descriptors::d6_a_panic_leaves_no_descriptor", || {
        let before = descriptors();
        for backend in BACKENDS {
            let run = || {
                Builder::new().backend(backend).run(async {
                    let (_client, server) = pair().await?;
                    let (listener, _) = listen().await?;
                    open_nursery(async |nursery| {
                        nursery.start_soon(async { server.receive().await.map(drop) });
                        let waits = listener.accept();
                        let panics = async {
                            wait_all_tasks_blocked(Duration::ZERO).await?;
                            panic!("on purpose")
                        };
                        let panicked: Result<()> = join(waits, panics).await.1;
                        panicked
                    })
                    .await
                })
            };
            let run = std::panic::AssertUnwindSafe(run);
            assert!(std::panic::catch_unwind(run).is_err());
            assert_eq!(descriptors(), before, "on {backend}");
        }
    });
}

#[test]
fn d7_a_run_leaves_no_descriptor() {
    alone("descriptors::d7_a_run_leaves_no_descriptor", || {
        check_no_descriptor_is_left(|| async {
            let (listener, address) = listen().await?;
            open_nursery(async |nursery| {
                nursery.start_soon(serve_listeners(echo, vec![listener]));
                for _ in 0..50 {
                    let client = connect_tcp(address).await?;
                    client.send_all(b"x").await?;
                    client.receive().await?;
                }
                nursery.cancel_scope().cancel("done");
                Ok(())
            })
            .await
        });
    });
}

/// Serves until its standard input ends, with room for 64 descriptors.
fn serve_in_a_small_process(backend: Backend) {
    Builder::new()
        .backend(backend)
        .run(async {
            let (listener, address) = listen().await?;
            println!("listening {address}");
            let server = Server::new(echo)
                .on_overload(|error| println!("overloaded {error}"))
                .on_error(|_| Ok(()));
            server.serve(vec![listener]).await
        })
        .unwrap_err();
}

/// Checks that a server that ran out of descriptors continues when there are some, and serves all
/// clients.
fn check_recovery(test: &str, backend: Backend) {
    if is_inside() {
        return serve_in_a_small_process(backend);
    }
    let mut child = again(test, "ulimit -n 64;")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut line_with = |word: &str| {
        let found = lines.by_ref().map(|line| line.unwrap()).find_map(|line| {
            let at = line.find(word)?;
            Some(line[at + word.len()..].to_owned())
        });
        found.unwrap_or_else(|| panic!("the server has ended and not said {word:?}"))
    };
    let address: SocketAddr = line_with("listening ").parse().unwrap();
    // More than the server can have; the rest wait in the queue.
    let mut clients: Vec<StdStream> = (0..100)
        .map(|number: u8| {
            let mut client = StdStream::connect(address).unwrap();
            client.write_all(&[number]).unwrap();
            client
        })
        .collect();
    line_with("overloaded ");
    line_with("overloaded ");
    // In the order in which they came: each that leaves makes room for one that waits.
    for (number, client) in clients.iter_mut().enumerate() {
        let mut answer = Vec::new();
        client.shutdown(Shutdown::Write).unwrap();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, [u8::try_from(number).unwrap()]);
    }
    child.kill().unwrap();
    let _: ExitStatus = child.wait().unwrap();
}

#[test]
fn v3_a_server_on_io_uring_recovers_from_a_lack_of_descriptors() {
    let test = "descriptors::v3_a_server_on_io_uring_recovers_from_a_lack_of_descriptors";
    check_recovery(test, Backend::IoUring);
}

#[test]
fn v3_a_server_on_polling_recovers_from_a_lack_of_descriptors() {
    let test = "descriptors::v3_a_server_on_polling_recovers_from_a_lack_of_descriptors";
    check_recovery(test, Backend::Polling);
}

/// What is told of a lack of descriptors says with which address, and what is to be done.
fn check_remedies(test: &str, backend: Backend) {
    if std::env::var_os(INSIDE).is_none() {
        let output = again(test, "ulimit -n 64;").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        return;
    }
    let ends =
        "(os error 24); close what is not needed, or raise the limit of open files (`ulimit -n`)";
    let told: Result<()> = Builder::new().backend(backend).run(async {
        let (_listener, address) = listen().await?;
        let mut taken = Vec::new();
        let told = loop {
            match connect_tcp(address).await {
                Ok(stream) => taken.push(stream),
                Err(error) => break error.to_string(),
            }
        };
        assert!(
            told.starts_with(&format!("cannot connect to {address}: ")),
            "{told}"
        );
        assert!(told.ends_with(ends), "{told}");
        let told = open_tcp_listeners((Ipv4Addr::LOCALHOST, 0)).await;
        let told = told.unwrap_err().to_string();
        assert!(told.starts_with("cannot listen on 127.0.0.1:0: "), "{told}");
        assert!(told.ends_with(ends), "{told}");
        Ok(())
    });
    told.unwrap();
}

#[test]
fn tl4_a_lack_of_descriptors_under_io_uring_is_told_with_address_and_remedy() {
    let test =
        "descriptors::tl4_a_lack_of_descriptors_under_io_uring_is_told_with_address_and_remedy";
    check_remedies(test, Backend::IoUring);
}

#[test]
fn tl4_a_lack_of_descriptors_under_polling_is_told_with_address_and_remedy() {
    let test =
        "descriptors::tl4_a_lack_of_descriptors_under_polling_is_told_with_address_and_remedy";
    check_remedies(test, Backend::Polling);
}

/// A run that gets no descriptor says why it cannot begin, and what to do.
fn check_start(test: &str, backend: Backend) {
    if std::env::var_os(INSIDE).is_none() {
        let output = again(test, "ulimit -n 64;").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        return;
    }
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    // A driver has several descriptors. Each of them is once the one that there is none for.
    let mut failures = 0;
    while let Err(error) = Builder::new().backend(backend).try_run(async {}) {
        let told = error.to_string();
        assert!(
            told.contains("raise the limit of open files (`ulimit -n`)"),
            "{told}"
        );
        failures += 1;
        taken.pop().expect("at last there are enough");
    }
    assert!(failures >= 2, "a selector or a ring, and what wakes it");
}

#[test]
fn a_run_on_io_uring_that_gets_no_descriptor_says_what_to_do() {
    let test = "descriptors::a_run_on_io_uring_that_gets_no_descriptor_says_what_to_do";
    check_start(test, Backend::IoUring);
}

#[test]
fn a_run_on_polling_that_gets_no_descriptor_says_what_to_do() {
    let test = "descriptors::a_run_on_polling_that_gets_no_descriptor_says_what_to_do";
    check_start(test, Backend::Polling);
}
