//! What the simulation promises beyond the rules of every driver: virtual time, the same for the
//! same seed, and faults where they were asked for.

#![allow(clippy::unwrap_used)] // every function here is a test, though the lint cannot see it

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use trio_platform::sim::{
    Errno, Fault, Faults, Kind, Outcome, Rule, SimulatedDriver, Simulation, What,
};
use trio_platform::{
    Accept, Backend, Completed, Connect, Descriptor, Driver, Family, Finished, Interest, Key,
    Operation, Ready, Receive, Send, Token, Wait, is_cancelled,
};

/// A world, a driver in it, and what the driver has reported.
struct World {
    simulation: Simulation,
    driver: SimulatedDriver,
    completed: Vec<Completed>,
    tokens: u64,
}

impl World {
    fn new(simulation: Simulation) -> Self {
        Self {
            driver: simulation.driver(),
            simulation,
            completed: Vec::new(),
            tokens: 0,
        }
    }

    fn start(&mut self, operation: impl Into<Operation>) -> (Key, Token) {
        self.tokens += 1;
        let token = Token(self.tokens);
        (self.driver.submit(operation.into(), token), token)
    }

    fn is_reported(&self, token: Token) -> bool {
        self.completed.iter().any(|report| report.token == token)
    }

    fn finish(&mut self, (key, token): (Key, Token)) -> Finished {
        while !self.is_reported(token) {
            assert!(!self.simulation.is_idle(), "it is never going to end");
            self.driver
                .turn(Wait::Forever, &mut self.completed)
                .unwrap();
        }
        self.driver.take(key).unwrap()
    }

    fn run(&mut self, operation: impl Into<Operation>) -> Finished {
        let started = self.start(operation);
        self.finish(started)
    }

    fn listen(&mut self, address: SocketAddr) -> Descriptor {
        let listener = self.driver.socket(Family::of(&address)).unwrap();
        self.driver.bind(&listener, &address, false).unwrap();
        self.driver.listen(&listener, 8).unwrap();
        listener
    }

    fn connect(&mut self, address: SocketAddr) -> io::Result<Descriptor> {
        let socket = self.driver.socket(Family::of(&address)).unwrap();
        self.run(Connect::new(socket, address)).into_connected()
    }

    fn accept(&mut self, listener: &Descriptor) -> io::Result<Descriptor> {
        self.run(Accept::new(listener.clone())).into_accepted()
    }

    /// A client and the server's end of its connection to `server()`.
    fn pair(&mut self) -> (Descriptor, Descriptor) {
        let listener = self.listen(server());
        let client = self.connect(server()).unwrap();
        let accepted = self.accept(&listener).unwrap();
        (client, accepted)
    }

    fn send(&mut self, to: &Descriptor, data: &[u8]) -> io::Result<usize> {
        let (_, sent) = self.run(Send::new(to.clone(), data.to_vec())).into_sent();
        sent.map(|count| count as usize)
    }

    fn receive(&mut self, from: &Descriptor) -> io::Result<Vec<u8>> {
        let received = self.run(Receive::new(from.clone())).into_received();
        received.map(|lease| lease.to_vec())
    }

    fn count(&self, what: impl Fn(&What) -> bool) -> usize {
        let trace = self.simulation.trace();
        trace.iter().filter(|event| what(&event.what)).count()
    }
}

fn server() -> SocketAddr {
    "10.0.0.1:80".parse().unwrap()
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Some traffic with something of everything in it.
fn program(simulation: &Simulation) -> Vec<String> {
    let mut world = World::new(simulation.clone());
    let listener = world.listen(server());
    let mut log = Vec::new();
    for round in 0..20 {
        let (client, accepted) = match (world.connect(server()), world.accept(&listener)) {
            (Ok(client), Ok(accepted)) => (client, accepted),
            (client, accepted) => {
                log.push(format!("{round}: {client:?} {accepted:?}"));
                continue;
            }
        };
        let sent = world.send(&client, &[round; 100]);
        let receive = world.start(Receive::new(accepted.clone()));
        world.driver.cancel(receive.0);
        let received = world.finish(receive).into_received();
        log.push(format!("{round}: {sent:?} {received:?}"));
    }
    log
}

#[test]
fn the_same_seed_does_the_same_and_another_does_not() {
    let run = |seed| {
        let simulation = Simulation::new(seed)
            .latency(ms(1)..=ms(20))
            .faults(Faults::storm());
        let log = program(&simulation);
        (log, simulation.trace(), simulation.fingerprint())
    };
    let (log, trace, fingerprint) = run(1);
    assert_eq!((log, trace.clone(), fingerprint), run(1));
    let (_, other_trace, other_fingerprint) = run(2);
    assert_ne!(trace, other_trace);
    assert_ne!(fingerprint, other_fingerprint);
}

#[test]
fn everything_is_closed_after_a_storm() {
    for seed in 0..100 {
        let simulation = Simulation::new(seed)
            .latency(ms(0)..=ms(20))
            .faults(Faults::storm());
        program(&simulation);
        assert_eq!(simulation.open_sockets(), 0, "seed {seed}");
    }
}

#[test]
fn time_passes_only_when_nothing_is_left_to_do_and_then_at_once() {
    let mut world = World::new(Simulation::new(1));
    let start = world.simulation.now();
    assert_eq!(world.driver.backend(), Backend::Simulation);
    assert_eq!(world.driver.virtual_time(), Some(start));
    world.pair();
    assert_eq!(world.simulation.now(), start, "nothing took time");
    let day = Duration::from_secs(86_400);
    world.driver.turn(Wait::For(day), &mut Vec::new()).unwrap();
    assert_eq!(world.simulation.now() - start, day);
}

#[test]
fn a_wait_ends_at_the_first_event() {
    let mut world = World::new(Simulation::new(1).latency(ms(30)..=ms(30)));
    let (client, accepted) = world.pair();
    let start = world.simulation.now();
    world.send(&client, b"x").unwrap();
    assert_eq!(world.simulation.now(), start, "sending is no waiting");
    let receive = world.start(Receive::new(accepted));
    let mut completed = Vec::new();
    world
        .driver
        .turn(Wait::For(ms(10)), &mut completed)
        .unwrap();
    assert_eq!(
        (world.simulation.now() - start, completed.len()),
        (ms(10), 0)
    );
    world
        .driver
        .turn(Wait::For(ms(50)), &mut completed)
        .unwrap();
    assert_eq!(
        (world.simulation.now() - start, completed.len()),
        (ms(30), 1)
    );
    let lease = world.driver.take(receive.0).unwrap().into_received();
    assert_eq!(&*lease.unwrap(), b"x");
}

#[test]
fn a_world_is_idle_when_only_a_call_could_help() {
    let mut world = World::new(Simulation::new(1).latency(ms(5)..=ms(5)));
    let (client, accepted) = world.pair();
    assert!(world.simulation.is_idle());
    let receive = world.start(Receive::new(accepted.clone()));
    assert!(!world.simulation.is_idle(), "it has not been handed over");
    world.driver.turn(Wait::Poll, &mut Vec::new()).unwrap();
    assert!(world.simulation.is_idle(), "nobody is going to send");
    world.driver.try_send(&client, b"x").unwrap();
    assert!(!world.simulation.is_idle(), "a byte is under way");
    world.finish(receive);
    assert!(world.simulation.is_idle());
    let hold = world.simulation.hold_time();
    assert!(!world.simulation.is_idle(), "somebody works");
    drop(hold);
    assert!(world.simulation.is_idle());
}

#[test]
fn time_that_is_held_does_not_pass() {
    let world = World::new(Simulation::new(1));
    let World {
        simulation,
        mut driver,
        ..
    } = world;
    let start = simulation.now();
    let hold = simulation.hold_time();
    thread::scope(|threads| {
        threads.spawn(|| drop(hold));
        // Ends only after the hold has, and then without any waiting for real.
        driver.turn(Wait::For(ms(1000)), &mut Vec::new()).unwrap();
    });
    assert_eq!(simulation.now() - start, ms(1000));
}

#[test]
fn one_world_outlives_its_drivers() {
    let simulation = Simulation::new(1);
    let listener = World::new(simulation.clone()).listen(server());
    let mut world = World::new(simulation);
    let client = world.connect(server()).unwrap();
    let accepted = world.accept(&listener).unwrap();
    world.send(&client, b"x").unwrap();
    assert_eq!(world.receive(&accepted).unwrap(), b"x");
}

#[test]
fn two_drivers_share_the_network_of_their_world() {
    let simulation = Simulation::new(1).latency(ms(1)..=ms(1));
    let mut one = World::new(simulation.clone());
    let mut two = World::new(simulation);
    let listener = one.listen(server());
    let accept = one.start(Accept::new(listener));
    one.driver.turn(Wait::Poll, &mut one.completed).unwrap();
    let client = two.connect(server()).unwrap();
    let accepted = one.finish(accept).into_accepted().unwrap();
    two.send(&client, b"x").unwrap();
    assert_eq!(one.receive(&accepted).unwrap(), b"x");
}

#[test]
fn a_descriptor_of_the_system_is_refused_by_name() {
    let mut world = World::new(Simulation::new(1));
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let of_the_system = Descriptor::from_socket(socket).unwrap();
    let error = world.receive(&of_the_system).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(
        error
            .to_string()
            .contains("expected a socket of the simulated network")
    );
    assert!(world.driver.listen(&of_the_system, 1).is_err());

    let mut other = World::new(Simulation::new(1));
    let elsewhere = other.listen(server());
    let error = world.accept(&elsewhere).unwrap_err();
    assert!(error.to_string().contains("of this simulation"));

    // Not even a cancel touches the socket of this world that happens to have the same name.
    let late = Rule::nth(1, Kind::Accept, Fault::LateStart(ms(1)));
    world.simulation.inject(late);
    let accept = world.start(Accept::new(elsewhere));
    world.driver.cancel(accept.0);
    let error = world.finish(accept).into_accepted().unwrap_err();
    assert!(is_cancelled(&error));
}

#[test]
fn a_short_transfer_moves_what_the_rule_says() {
    let simulation = Simulation::new(1)
        .script(Rule::nth(1, Kind::Send, Fault::Short(4)).peer(server()))
        .script(Rule::nth(2, Kind::Receive, Fault::Short(1)).local(server()));
    let mut world = World::new(simulation);
    let (client, accepted) = world.pair();
    assert_eq!(world.send(&client, b"abcdefgh").unwrap(), 4);
    assert_eq!(world.receive(&accepted).unwrap(), b"abcd");
    assert_eq!(world.send(&client, b"efgh").unwrap(), 4);
    assert_eq!(world.receive(&accepted).unwrap(), b"e");
    assert_eq!(world.receive(&accepted).unwrap(), b"fgh");
}

#[test]
fn an_attempt_counts_when_it_moves_something() {
    let rule = Rule::nth(1, Kind::Receive, Fault::Short(1));
    let mut world = World::new(Simulation::new(1).script(rule));
    let (client, accepted) = world.pair();
    let mut into = [0; 8];
    let error = world.driver.try_receive(&accepted, &mut into).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    world.driver.try_send(&client, b"abc").unwrap();
    assert_eq!(world.driver.try_receive(&accepted, &mut into).unwrap(), 1);
    assert!(world.driver.likely_readable(&accepted));
    assert_eq!(world.driver.try_receive(&accepted, &mut into).unwrap(), 2);
    assert!(!world.driver.likely_readable(&accepted));
}

#[test]
fn a_late_completion_beats_every_cancel() {
    let rule = Rule::nth(1, Kind::Receive, Fault::LateCompletion(ms(10)));
    let mut world = World::new(Simulation::new(1).script(rule));
    let (client, accepted) = world.pair();
    world.send(&client, b"x").unwrap();
    let start = world.simulation.now();
    let receive = world.start(Receive::new(accepted));
    world.driver.cancel(receive.0);
    let lease = world.finish(receive).into_received().unwrap();
    assert_eq!(&*lease, b"x");
    assert_eq!(world.simulation.now() - start, ms(10));
}

#[test]
fn a_late_start_loses_to_a_cancel() {
    let rule = Rule::nth(1, Kind::Receive, Fault::LateStart(ms(10)));
    let mut world = World::new(Simulation::new(1).script(rule));
    let (client, accepted) = world.pair();
    world.send(&client, b"x").unwrap();
    let receive = world.start(Receive::new(accepted.clone()));
    world.driver.cancel(receive.0);
    let error = world.finish(receive).into_received().unwrap_err();
    assert!(is_cancelled(&error));
    assert_eq!(world.receive(&accepted).unwrap(), b"x");
}

#[test]
fn a_late_cancel_loses_to_what_comes_before_it() {
    let rule = Rule::nth(1, Kind::Cancel, Fault::LateStart(ms(10)));
    let mut world = World::new(Simulation::new(1).latency(ms(5)..=ms(5)).script(rule));
    let (client, accepted) = world.pair();
    let receive = world.start(Receive::new(accepted));
    world.driver.cancel(receive.0);
    world.send(&client, b"x").unwrap();
    let lease = world.finish(receive).into_received().unwrap();
    assert_eq!(&*lease, b"x");
}

#[test]
fn chance_lets_a_cancel_win_and_lose() {
    let mut won = 0;
    for seed in 0..100 {
        let mut world = World::new(Simulation::new(seed));
        let (client, accepted) = world.pair();
        let receive = world.start(Receive::new(accepted));
        world.driver.turn(Wait::Poll, &mut Vec::new()).unwrap();
        // Byte and cancel meet in one turn.
        world.driver.try_send(&client, b"x").unwrap();
        world.driver.cancel(receive.0);
        won += u32::from(world.finish(receive).into_received().is_err());
    }
    assert!((10..90).contains(&won), "the cancel won {won} of 100");
}

#[test]
fn a_receive_without_a_provided_buffer_is_repeated() {
    let rule = Rule::nth(1, Kind::Receive, Fault::NoBuffer);
    let mut world = World::new(Simulation::new(1).script(rule));
    let (client, accepted) = world.pair();
    world.send(&client, b"x").unwrap();
    assert_eq!(world.receive(&accepted).unwrap(), b"x");
    assert_eq!(world.driver.statistics().buffers_exhausted, 1);
}

#[test]
fn a_reset_breaks_both_ends() {
    let rule = Rule::nth(2, Kind::Send, Fault::Reset).peer(server());
    let mut world = World::new(Simulation::new(1).script(rule));
    let (client, accepted) = world.pair();
    world.send(&client, b"arrived").unwrap();
    let error = world.send(&client, b"lost").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(world.receive(&accepted).unwrap(), b"arrived");
    let error = world.receive(&accepted).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(world.receive(&accepted).unwrap(), b"");
    let error = world.send(&accepted, b"anybody?").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_failed_accept_says_why_and_keeps_the_connection() {
    for errno in [
        Errno::TooManyFiles,
        Errno::TooManyFilesInSystem,
        Errno::OutOfMemory,
    ] {
        let rule = Rule::nth(1, Kind::Accept, Fault::Fail(errno)).local(server());
        let mut world = World::new(Simulation::new(1).script(rule));
        let listener = world.listen(server());
        let client = world.connect(server()).unwrap();
        let error = world.accept(&listener).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(errno.raw()));
        let accepted = world.accept(&listener).unwrap();
        world.send(&client, b"x").unwrap();
        assert_eq!(world.receive(&accepted).unwrap(), b"x");
    }
}

#[test]
fn an_aborted_accept_loses_the_connection() {
    let rule = Rule::nth(1, Kind::Accept, Fault::Fail(Errno::ConnectionAborted));
    let mut world = World::new(Simulation::new(1).script(rule));
    let listener = world.listen(server());
    let client = world.connect(server()).unwrap();
    let error = world.accept(&listener).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    let error = world.receive(&client).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(world.simulation.open_sockets(), 2, "listener and client");
}

#[test]
fn a_connect_fails_as_the_rule_says() {
    let rule = Rule::nth(1, Kind::Connect, Fault::Fail(Errno::TimedOut));
    let mut world = World::new(Simulation::new(1).script(rule));
    let _listener = world.listen(server());
    let error = world.connect(server()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    world.connect(server()).unwrap();
}

#[test]
fn a_failed_enter_loses_nothing() {
    let simulation = Simulation::new(1);
    for nth in 1..=3 {
        let errno = if nth % 2 == 0 {
            Errno::Again
        } else {
            Errno::Interrupted
        };
        simulation.inject(Rule::nth(nth, Kind::Enter, Fault::Fail(errno)));
    }
    let mut world = World::new(simulation);
    let listener = world.driver.socket(Family::V4).unwrap();
    let ready = world.start(Ready::new(listener, Interest::Writable));
    let mut completed = Vec::new();
    world.driver.turn(Wait::Poll, &mut completed).unwrap();
    assert_eq!(completed.len(), 1);
    world.driver.take(ready.0).unwrap().into_ready().unwrap();
    assert_eq!(world.driver.statistics().enters, 4);
}

#[test]
fn a_kernel_that_always_fails_still_gets_there() {
    let faults = Faults::none().failed_enters(1000);
    let mut world = World::new(Simulation::new(1).faults(faults));
    let (client, accepted) = world.pair();
    world.send(&client, b"x").unwrap();
    assert_eq!(world.receive(&accepted).unwrap(), b"x");
}

#[test]
fn a_turn_hands_over_what_the_queue_holds_and_counts_the_rest() {
    let mut world = World::new(Simulation::new(1).queue_entries(4));
    let socket = world.driver.socket(Family::V4).unwrap();
    for _ in 0..10 {
        world.start(Ready::new(socket.clone(), Interest::Writable));
    }
    assert_eq!(world.driver.statistics().overflowed, 6);
    let mut completed = Vec::new();
    for expected in [4, 8, 10, 10] {
        world.driver.turn(Wait::Poll, &mut completed).unwrap();
        assert_eq!(completed.len(), expected);
    }
    assert_eq!(world.driver.statistics().enters, 3, "none without a reason");
}

// The leak is on purpose, and AddressSanitizer would say so.
#[cfg(not(asan))]
#[test]
fn what_cannot_be_cancelled_in_time_is_leaked_and_said() {
    let rule = Rule::nth(1, Kind::Cancel, Fault::LateStart(ms(500)));
    let mut world = World::new(Simulation::new(1).script(rule));
    let (_client, accepted) = world.pair();
    world.start(Receive::new(accepted.clone()));
    world.start(Receive::new(accepted));
    assert_eq!(world.driver.drain(ms(100)).leaked, 1);
    assert_eq!(world.driver.in_flight(), 0);
    // The late cancel finds nothing any more.
    world
        .driver
        .turn(Wait::For(ms(1000)), &mut Vec::new())
        .unwrap();
}

#[test]
fn order_within_a_turn_is_a_matter_of_the_seed() {
    let order = |seed| {
        let mut world = World::new(Simulation::new(seed));
        let socket = world.driver.socket(Family::V4).unwrap();
        for _ in 0..8 {
            world.start(Ready::new(socket.clone(), Interest::Writable));
        }
        world.driver.turn(Wait::Poll, &mut world.completed).unwrap();
        let tokens: Vec<u64> = world.completed.iter().map(|done| done.token.0).collect();
        tokens
    };
    assert_eq!(order(1), order(1));
    assert!((2..10).any(|seed| order(seed) != order(1)));
    let mut sorted = order(1);
    sorted.sort_unstable();
    assert_eq!(sorted, (1..=8).collect::<Vec<_>>());
}

#[test]
fn a_waiting_receive_holds_no_block() {
    let mut world = World::new(Simulation::new(1).block_size(1 << 30));
    let (client, accepted) = world.pair();
    // A hundred blocks of a gigabyte would not go unnoticed.
    let waiting: Vec<_> = (0..100)
        .map(|_| world.start(Receive::new(accepted.clone())))
        .collect();
    world.driver.turn(Wait::Poll, &mut Vec::new()).unwrap();
    drop(client);
    for (key, _) in waiting {
        world.driver.cancel(key);
    }
    world.driver.drain(ms(0));
}

#[test]
fn the_trace_tells_what_happened() {
    let mut world = World::new(Simulation::new(1));
    let (client, _accepted) = world.pair();
    world.send(&client, b"abc").unwrap();
    let started = world.count(|what| matches!(what, What::Started { .. }));
    let ended = world.count(|what| matches!(what, What::Ended { .. }));
    assert_eq!((started, ended), (3, 3));
    let sent = Outcome::Done(3);
    assert_eq!(
        world.count(|what| matches!(what, What::Ended { outcome, .. } if *outcome == sent)),
        1
    );
    let last = world.simulation.trace().pop().unwrap();
    assert_eq!(last.to_string(), "100000s: 3 ends: 3");
}

#[test]
fn another_fault_leaves_the_latencies_as_they_were() {
    let arrival = |faults| {
        let simulation = Simulation::new(4).latency(ms(1)..=ms(90)).faults(faults);
        let mut world = World::new(simulation.clone());
        world.pair();
        simulation.now()
    };
    let short = Faults::none().short_transfers(500);
    assert_eq!(arrival(Faults::none()), arrival(short));
}
