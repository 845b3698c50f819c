//! What the other processes of a machine see of a run: the children that a process starts
//! meanwhile, and the signals of the system.
//!
//! All of this concerns the process as a whole, so each test starts this program again with itself
//! as the only test.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener as StdListener, TcpStream as StdStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use futures::future::join;
use rustix::net::sockopt::tcp_nodelay;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use trio::io::signal::{Signal, open_signal_receiver};
use trio::lowlevel::{Connect, Descriptor, Family, Send, socket, submit};
use trio::net::{TcpStream, connect_tcp};
use trio::testing::wait_all_tasks_blocked;
use trio::{BrokenResource, Builder, Result, backend, move_on_after, open_nursery};

use crate::descriptors::{BACKENDS, alone, listen, pair};

/// The signal of a write to a pipe without a reader, unless the program has ignored it.
const PIPE: Signal = Signal::from_raw(13);

/// The descriptors of this process that a program it starts would inherit.
fn inheritable() -> Vec<String> {
    const CLOEXEC: u32 = 0o2_000_000;
    let entries = std::fs::read_dir("/proc/self/fdinfo").unwrap();
    let mut numbers = Vec::new();
    for entry in entries {
        let number = entry.unwrap().file_name().into_string().unwrap();
        // The descriptor through which the folder is read is closed by now.
        let Ok(text) = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")) else {
            continue;
        };
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = u32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
        if flags & CLOEXEC == 0 {
            numbers.push(number);
        }
    }
    numbers.sort();
    numbers
}

/// The descriptors of a program that this process starts.
fn inherited() -> Vec<String> {
    let output = Command::new("sh")
        .args(["-c", "ls /proc/$$/fd"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut numbers: Vec<String> = text.lines().map(str::to_owned).collect();
    numbers.sort();
    numbers
}

/// A program that runs until its standard input ends.
fn lasting_child() -> Child {
    let child = Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    child.unwrap()
}

/// Compares what a child holds if it is started with something of every kind in flight.
async fn start_a_child_with_everything_in_flight(before: &[Vec<String>]) -> Result<()> {
    let (idle, _) = listen().await?;
    let (client, server) = pair().await?;
    let (_unused, gone) = pair().await?;
    let mut signals = open_signal_receiver(&[Signal::USER_2])?;
    // A connection that goes on receives in another way than a fresh one.
    for _ in 0..4 {
        client.send_all(b"x").await?;
        server.receive().await?;
    }
    let mut child = None;
    open_nursery(async |nursery| {
        nursery.start_soon(async { idle.accept().await.map(drop) });
        nursery.start_soon(async { signals.next().await.map(drop) });
        nursery.start_soon(async { gone.receive().await.map(drop) });
        nursery.start_soon(async {
            trio::to_thread::run_sync(|| ()).await?;
            Ok(())
        });
        nursery.start_soon(async {
            // What arrives after the child was started reaches its receiver.
            let data = server.receive().await?.expect("no end of file");
            assert_eq!(&*data, b"after");
            Ok(())
        });
        wait_all_tasks_blocked(Duration::ZERO).await?;
        assert_eq!([inheritable(), inherited()], before, "by {:?}", backend());
        child = Some(lasting_child());
        client.send_all(b"after").await?;
        wait_all_tasks_blocked(Duration::ZERO).await?;
        nursery.cancel_scope().cancel("seen");
        Ok(())
    })
    .await
    .unwrap();
    // A connection is closed when this process closes it, even though the child goes on.
    drop(server);
    assert!(client.receive().await?.is_none());
    let mut child = child.unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"alive\n").unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "alive\n");
    drop(stdin);
    assert!(child.wait().unwrap().success());
    Ok(())
}

#[test]
fn d11_a_child_process_inherits_no_descriptor_and_disturbs_nothing() {
    alone(
        "inherit::d11_a_child_process_inherits_no_descriptor_and_disturbs_nothing",
        || {
            // The process that started this one may have left it some.
            let before = [inheritable(), inherited()];
            for backend in BACKENDS {
                let run = Builder::new()
                    .backend(backend)
                    .run(start_a_child_with_everything_in_flight(&before));
                run.unwrap_or_else(|error| panic!("on {backend}: {error:?}"));
            }
        },
    );
}

/// A connection from this run to a socket that belongs to no run; returns its descriptor for direct
/// use.
async fn to_outside() -> Result<(Descriptor, StdStream)> {
    let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let connect = Connect::new(socket::stream(Family::of(&address))?, address);
    let descriptor = submit(connect).await?.into_connected()?;
    Ok((descriptor, listener.accept()?.0))
}

/// The ways of sending.
#[derive(Clone, Copy, Debug)]
enum Way {
    Slice,
    Vector,
    Operation,
}

async fn send(descriptor: &Descriptor, stream: &TcpStream, way: Way, length: usize) -> Result<()> {
    let data = vec![0; length];
    match way {
        Way::Slice => stream.send_all(&data).await,
        Way::Vector => stream.send_all(data).await,
        Way::Operation => {
            let sent = submit(Send::new(descriptor.clone(), data)).await?;
            Ok(sent.into_sent().1.map(drop)?)
        }
    }
}

/// Sends to a side that has closed, or closes meanwhile; nothing but an error says so.
async fn send_to_who_has_gone() -> Result<()> {
    for way in [Way::Slice, Way::Vector, Way::Operation] {
        for waits in [false, true] {
            let (descriptor, there) = to_outside().await?;
            let stream = TcpStream::from_descriptor(descriptor.clone());
            let leave = async {
                // Data that it has not received makes this close a reset.
                drop(there);
                wait_all_tasks_blocked(Duration::from_millis(1)).await
            };
            let error = if waits {
                let waiting = async {
                    loop {
                        send(&descriptor, &stream, way, 8 << 20).await?;
                    }
                };
                let (ended, left): (Result<()>, _) = join(waiting, async {
                    wait_all_tasks_blocked(Duration::from_millis(1)).await?;
                    leave.await
                })
                .await;
                left?;
                ended.unwrap_err()
            } else {
                stream.send_all(b"never received").await?;
                leave.await?;
                // The first to notice gets the reset, and those who come later the broken pipe.
                drop(send(&descriptor, &stream, way, 100).await);
                send(&descriptor, &stream, way, 100).await.unwrap_err()
            };
            let told = match way {
                Way::Operation => error.is::<io::Error>(),
                _ => error.is::<BrokenResource>(),
            };
            assert!(told, "{way:?}, waits: {waits}: {error:?}");
        }
    }
    Ok(())
}

#[test]
fn d12_who_sends_to_a_broken_connection_gets_an_error_and_no_signal() {
    alone(
        "inherit::d12_who_sends_to_a_broken_connection_gets_an_error_and_no_signal",
        || {
            for backend in BACKENDS {
                let run = Builder::new().backend(backend).run(async {
                    // If a signal would end the process, it is received here instead. The standard
                    // library ignores this signal; the receiver does not.
                    let mut pipes = open_signal_receiver(&[PIPE])?;
                    send_to_who_has_gone().await?;
                    let none = move_on_after(Duration::from_millis(20), pipes.next()).await?;
                    assert!(none.is_none(), "a broken connection was a signal");
                    // It would have been received: writing to a real pipe raises it.
                    let mut child = lasting_child();
                    let mut pipe = child.stdin.take().unwrap();
                    child.kill().unwrap();
                    let _: ExitStatus = child.wait().unwrap();
                    drop(pipe.write_all(b"x"));
                    assert_eq!(pipes.next().await?, PIPE);
                    Ok(())
                });
                let run: Result<()> = run;
                run.unwrap_or_else(|error| panic!("on {backend}: {error:?}"));
            }
        },
    );
}

/// Whether each connection of this process has `TCP_NODELAY`.
fn are_without_delay() -> Vec<bool> {
    let process = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    let numbers = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let copies = numbers.filter_map(|number| {
        let number = number.parse().unwrap();
        pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok()
    });
    let connected = copies.filter(|copy| rustix::net::getpeername(copy).is_ok());
    connected
        .filter_map(|connection| tcp_nodelay(connection).ok())
        .collect()
}

#[test]
fn no_connection_delays_what_is_sent_however_it_was_accepted() {
    alone(
        "inherit::no_connection_delays_what_is_sent_however_it_was_accepted",
        || {
            for backend in BACKENDS {
                let run = Builder::new().backend(backend).run(async {
                    let (listener, address) = listen().await?;
                    let mut all = Vec::new();
                    // From the third on a ring may have a feed of connections. Of every two, one
                    // has arrived before it is asked for, and one is waited for.
                    for _ in 0..4 {
                        let there = connect_tcp(address).await?;
                        all.extend([there, listener.accept().await?]);
                        let mut accept = Box::pin(listener.accept());
                        assert!(futures::poll!(&mut accept).is_pending());
                        let there = connect_tcp(address).await?;
                        all.extend([there, accept.await?]);
                    }
                    assert_eq!(are_without_delay(), vec![true; all.len()]);
                    Ok(())
                });
                let run: Result<()> = run;
                run.unwrap_or_else(|error| panic!("on {backend}: {error:?}"));
            }
        },
    );
}
