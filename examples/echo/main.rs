//! An echo server: every connection gets back what it sends, until Ctrl-C or SIGTERM.
//!
//! [`echo`] serves one connection, [`serve`] is a server on one thread, and [`run`] starts as many
//! servers as asked for. `arguments.rs` reads the command line, and `demo.rs` is a client that
//! measures.

mod arguments;
mod demo;
mod histogram;
mod stop;

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::process::ExitCode;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use trio::io::signal::{Signal, SignalReceiver, open_signal_receiver};
use trio::lowlevel::BackendInfo;
use trio::net::{Server, TcpListener, TcpStream};
use trio::{Error, Result, backend, open_nursery};

use arguments::{Arguments, USAGE};
use demo::Report;
use stop::Stop;

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args_os().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(mistake) => {
            eprintln!("echo: {mistake}; `--help` tells more");
            return ExitCode::from(2);
        }
    };
    match run(&arguments) {
        Ok(statistics) => {
            println!("{statistics}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("echo: {error:?}");
            ExitCode::FAILURE
        }
    }
}

/// Sends back what is received, until the end of file.
async fn echo(stream: TcpStream, statistics: &RefCell<Statistics>) -> Result<()> {
    while let Some(data) = stream.receive().await? {
        statistics.borrow_mut().bytes += data.len() as u64;
        stream.send_all(data).await?;
    }
    statistics.borrow_mut().ended += 1;
    Ok(())
}

/// Serves until asked to stop. From then on connections have `grace` to end on their own, unless a
/// second signal cuts it short; the rest are cancelled.
async fn serve(
    listeners: Vec<TcpListener>,
    mut signals: SignalReceiver,
    grace: Duration,
    stop: &Stop,
) -> Result<Statistics> {
    let statistics = RefCell::new(Statistics::default());
    let count = &statistics;
    let connection = |stream| {
        count.borrow_mut().accepted += 1;
        echo(stream, count)
    };
    let server = Server::new(connection).on_error(|_| {
        count.borrow_mut().failed += 1;
        Ok(())
    });
    open_nursery(async |watchers| {
        open_nursery(async |connections| {
            let accepting = server.serve_in(connections, listeners);
            if let Some(signal) = until_stopped(accepting, &mut signals, stop).await? {
                let open = connections.child_count();
                println!("{signal}: no new connections; {open} open, to end within {grace:?}");
            }
            let scope = connections.cancel_scope();
            scope.set_timeout(grace);
            watchers.start_soon(async move {
                signals.next().await?;
                scope.cancel("a second signal");
                Ok(())
            });
            Ok(())
        })
        .await?;
        watchers.cancel_scope().cancel("no connection is left");
        Ok(())
    })
    .await?;
    Ok(statistics.into_inner())
}

/// Runs `accepting` until a signal comes, which is returned, or another worker has stopped.
async fn until_stopped(
    accepting: impl Future<Output = Result<()>>,
    signals: &mut SignalReceiver,
    stop: &Stop,
) -> Result<Option<Signal>> {
    open_nursery(async |nursery| {
        nursery.start_soon(accepting);
        nursery.start_soon(async {
            stop.requested().await?;
            nursery.cancel_scope().cancel("another worker has stopped");
            Ok(())
        });
        let signal = signals.next().await?;
        nursery.cancel_scope().cancel("asked to stop");
        Ok(Some(signal))
    })
    .await
}

/// Runs one server on each thread, all on the same ports, with the demo beside them if it was asked for.
/// Whichever ends first, well or not, stops the others.
fn run(arguments: &Arguments) -> Result<Statistics> {
    let stop = &Stop::new()?;
    thread::scope(|threads| {
        let mut workers = Vec::new();
        let mut on = arguments.addresses.clone();
        while workers.len() < arguments.workers.get() {
            let (report, started) = mpsc::channel();
            workers.push(threads.spawn(move || work(arguments, &on, stop, &report)));
            let Ok(Started { addresses, backend }) = started.recv() else {
                // It has failed, and the result of its thread says why.
                return gather(workers, None);
            };
            on = addresses;
            if workers.len() == arguments.workers.get() {
                on.iter()
                    .for_each(|address| println!("listening tcp {address} {backend}"));
            }
        }
        let demonstrated = arguments.demo.map(|duration| {
            let _stopping = stop.when_dropped();
            demo::run(arguments, on[0], duration)
        });
        gather(workers, demonstrated)
    })
}

/// What a worker reports when it has begun to listen.
struct Started {
    addresses: Vec<SocketAddr>,
    backend: BackendInfo,
}

/// The whole life of a worker.
fn work(
    arguments: &Arguments,
    on: &[SocketAddr],
    stop: &Stop,
    report: &Sender<Started>,
) -> Result<Statistics> {
    let _stopping = stop.when_dropped();
    let served = arguments.builder().try_run(async {
        // Before anybody learns that the server runs, and sends it one.
        let signals = open_signal_receiver(&[Signal::INTERRUPT, Signal::TERMINATE])?;
        let listeners = listen(on, arguments.workers.get() > 1)?;
        let addresses = listeners.iter().map(TcpListener::local_address);
        let started = Started {
            addresses: addresses.collect::<Result<_>>()?,
            backend: backend(),
        };
        report.send(started)?;
        serve(listeners, signals, arguments.grace, stop).await
    });
    served?
}

/// A listener for each address; several runs can listen on the same if `share_port`.
fn listen(on: &[SocketAddr], share_port: bool) -> Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for &address in on {
        listeners.extend(TcpListener::open_all(address.into(), BACKLOG, share_port)?);
    }
    Ok(listeners)
}

/// Waits for the workers, prints the demo's report, and adds up their statistics.
fn gather(
    workers: Vec<ScopedJoinHandle<'_, Result<Statistics>>>,
    demonstrated: Option<Result<Report>>,
) -> Result<Statistics> {
    let mut total = Statistics::default();
    let mut errors = Vec::new();
    match demonstrated {
        Some(Ok(report)) => println!("\n{report}\n"),
        Some(Err(error)) => errors.push(error),
        None => {}
    }
    for worker in workers {
        match worker.join() {
            Ok(Ok(statistics)) => total.add(&statistics),
            Ok(Err(error)) => errors.push(error),
            Err(panic) => resume_unwind(panic),
        }
    }
    if errors.len() > 1 {
        return Err(Error::group("several workers have failed", errors));
    }
    errors.pop().map_or(Ok(total), Err)
}

/// What a server has done.
#[derive(Default)]
struct Statistics {
    accepted: u64,
    /// Connections that the client has ended.
    ended: u64,
    /// Connections that broke.
    failed: u64,
    bytes: u64,
}

impl Statistics {
    fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.ended += other.ended;
        self.failed += other.failed;
        self.bytes += other.bytes;
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            accepted,
            ended,
            failed,
            bytes,
        } = self;
        let cut = accepted - ended - failed;
        write!(
            f,
            "connections: {accepted} ({ended} ended, {failed} failed, {cut} cut off), bytes: {bytes}"
        )
    }
}

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;
