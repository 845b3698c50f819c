//! Faults by the letter: the nth operation of a kind on a socket fails in this way.

use std::fmt;
use std::net::SocketAddr;

use super::fault::Fault;

/// What a fault happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A receive: an operation, or a [`try_receive`](crate::Driver::try_receive) that finds
    /// something.
    Receive,
    /// A send: an operation, or a [`try_send`](crate::Driver::try_send) that finds room.
    Send,
    /// An accept.
    Accept,
    /// A connect.
    Connect,
    /// A wait for readiness.
    Ready,
    /// A request to cancel an operation.
    Cancel,
    /// The call by which the driver submits and waits.
    Enter,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Receive => "receive",
            Self::Send => "send",
            Self::Accept => "accept",
            Self::Connect => "connect",
            Self::Ready => "ready",
            Self::Cancel => "cancel",
            Self::Enter => "enter",
        })
    }
}

/// One fault at one place: the nth of a kind, counted from when the rule was given, among those
/// that it is limited to. Fires once.
///
/// # Examples
///
/// ```
/// use std::net::SocketAddr;
/// # mod trio { pub use trio_platform::sim as testing; }
/// use trio::testing::{Errno, Fault, Kind, Rule, Simulation};
///
/// let server: SocketAddr = "10.0.0.1:80".parse().unwrap();
/// let simulation = Simulation::new(1)
///     // The second connection to the server is lost before it is accepted.
///     .script(Rule::nth(2, Kind::Accept, Fault::Fail(Errno::ConnectionAborted)).local(server))
///     // The first bytes that a client gets from the server come one at a time.
///     .script(Rule::nth(1, Kind::Receive, Fault::Short(1)).peer(server));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Rule {
    kind: Kind,
    /// How many more have to come until it fires, itself included.
    remaining: u64,
    local: Option<SocketAddr>,
    peer: Option<SocketAddr>,
    fault: Fault,
}

impl Rule {
    /// `fault` happens to the `nth` of `kind`; the first is number one.
    ///
    /// # Panics
    ///
    /// If `nth` is zero, or if `fault` cannot happen to something of this kind.
    pub fn nth(nth: u64, kind: Kind, fault: Fault) -> Self {
        assert!(nth > 0, "the first {kind} is number one");
        assert!(
            fault.fits(kind),
            "{fault:?} does not happen to a thing of the kind {kind}"
        );
        Self {
            kind,
            remaining: nth,
            local: None,
            peer: None,
            fault,
        }
    }

    /// Counts only what is done on sockets with this local address, such as a listener and the
    /// connections that it accepted.
    pub fn local(mut self, address: SocketAddr) -> Self {
        self.local = Some(address);
        self
    }

    /// Counts only what is done on sockets connected to this address.
    pub fn peer(mut self, address: SocketAddr) -> Self {
        self.peer = Some(address);
        self
    }

    fn counts(&self, kind: Kind, local: Option<SocketAddr>, peer: Option<SocketAddr>) -> bool {
        self.kind == kind
            && (self.local.is_none() || self.local == local)
            && (self.peer.is_none() || self.peer == peer)
    }
}

/// The rules that have not fired.
#[derive(Debug, Default)]
pub(super) struct Script(Vec<Rule>);

impl Script {
    pub(super) fn add(&mut self, rule: Rule) {
        self.0.push(rule);
    }

    /// The fault for the next of `kind`, on a socket with these addresses. Every rule that it
    /// concerns counts it; of several that would fire, the one given first does, and the others
    /// fire at the next.
    pub(super) fn next(
        &mut self,
        kind: Kind,
        local: Option<SocketAddr>,
        peer: Option<SocketAddr>,
    ) -> Option<Fault> {
        let mut fires = None;
        for (index, rule) in self.0.iter_mut().enumerate() {
            if rule.counts(kind, local, peer) {
                rule.remaining = rule.remaining.saturating_sub(1);
                if rule.remaining == 0 && fires.is_none() {
                    fires = Some(index);
                }
            }
        }
        fires.map(|index| self.0.remove(index).fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_fires_at_the_nth_that_it_counts_and_once() {
        let here: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let mut script = Script::default();
        script.add(Rule::nth(2, Kind::Receive, Fault::Reset).local(here));
        assert_eq!(script.next(Kind::Receive, Some(here), None), None);
        assert_eq!(script.next(Kind::Receive, None, Some(here)), None);
        assert_eq!(script.next(Kind::Send, Some(here), None), None);
        assert_eq!(
            script.next(Kind::Receive, Some(here), None),
            Some(Fault::Reset)
        );
        assert_eq!(script.next(Kind::Receive, Some(here), None), None);
    }

    #[test]
    fn of_two_rules_for_one_operation_the_second_takes_the_next() {
        let mut script = Script::default();
        script.add(Rule::nth(1, Kind::Send, Fault::Short(1)));
        script.add(Rule::nth(1, Kind::Send, Fault::Reset));
        assert_eq!(script.next(Kind::Send, None, None), Some(Fault::Short(1)));
        assert_eq!(script.next(Kind::Send, None, None), Some(Fault::Reset));
    }

    #[test]
    #[should_panic(expected = "does not happen")]
    fn a_fault_that_cannot_happen_to_the_kind_is_refused() {
        let _ = Rule::nth(1, Kind::Accept, Fault::Short(1));
    }
}
