//! Signals: a grace period, and its end.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{connect, part, ping};
use crate::server::Server;

crate::on_both_backends! {
    a_thousand_connections_are_cut_off_within_a_second,
    in_the_grace_period_connections_go_on_and_no_new_one_comes,
    a_second_signal_cuts_the_grace_period_short,
}

fn a_thousand_connections_are_cut_off_within_a_second(backend: &str) {
    let server = Server::start(backend, &[]);
    let clients: Vec<_> = (0..1000).map(|_| connect(server.address)).collect();
    for client in &clients {
        ping(client, b"open");
    }
    let (ended, took) = timed(|| server.stop());
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    let told = "SIGTERM: no new connections; 1000 open, to end within 500ms\n\
                connections: 1000 (0 ended, 0 failed, 1000 cut off), bytes: 4000\n";
    assert_eq!(ended.output, told);
    assert!(took >= Duration::from_millis(500), "ended after {took:?}");
    assert!(took < Duration::from_secs(1), "ended after {took:?}");
}

fn in_the_grace_period_connections_go_on_and_no_new_one_comes(backend: &str) {
    let mut server = Server::start(backend, &["--grace", "3600"]);
    let client = connect(server.address);
    ping(&client, b"before");
    server.signal(Signal::TERM);
    assert_eq!(
        server.output.next(),
        "SIGTERM: no new connections; 1 open, to end within 3600s"
    );
    ping(&client, b"after");
    let refusal = TcpStream::connect(server.address).unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::ConnectionRefused);
    part(client);
    // With its last connection the server ends, an hour before it would have to.
    let ended = server.wait();
    assert_eq!(ended.code, Some(0));
    let told = "connections: 1 (1 ended, 0 failed, 0 cut off), bytes: 11\n";
    assert_eq!(ended.output, told);
}

fn a_second_signal_cuts_the_grace_period_short(backend: &str) {
    let mut server = Server::start(backend, &["--grace", "3600"]);
    let clients: Vec<_> = (0..10).map(|_| connect(server.address)).collect();
    for client in &clients {
        ping(client, b"open");
    }
    server.signal(Signal::INT);
    assert_eq!(
        server.output.next(),
        "SIGINT: no new connections; 10 open, to end within 3600s"
    );
    ping(&clients[0], b"open");
    server.signal(Signal::TERM);
    let ended = server.wait();
    assert_eq!(ended.code, Some(0));
    let told = "connections: 10 (0 ended, 0 failed, 10 cut off), bytes: 44\n";
    assert_eq!(ended.output, told);
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long another process takes is asked of no run"
)]
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = work();
    (value, start.elapsed())
}
