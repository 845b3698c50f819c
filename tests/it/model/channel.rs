//! Channels against plain models: the channel of a run and the one between threads against the same
//! model, broadcasts against a list of everything that was ever sent, a watch against a number.
//!
//! A model gets each call when it is made, and says at once who receives what. What a waiter that
//! was woken by a close finds is asked of the model when the waiter runs.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::future::poll_fn;
use std::task::Poll;

use trio::channel::{
    BroadcastError, BroadcastReceiveChannel, BroadcastSendChannel, MemoryReceiveChannel,
    MemorySendChannel, ReceiveError, SendError, ThreadReceiveChannel, ThreadSendChannel,
    TryReceiveError, TrySendError, WatchReceiver, WatchSender,
};
use trio::{
    CancelScope, Result, checkpoint, open_broadcast_channel, open_lagging_broadcast_channel,
    open_memory_channel, open_nursery, open_thread_channel, open_watch_channel, sleep,
};

use super::{Random, agree, check, simulate};
use crate::support::secs;

const TASKS: usize = 4;

#[derive(Clone, Debug)]
struct Step {
    task: usize,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Yield,
    Sleep(u64),
    Send,
    TrySend,
    /// Begins to send, yields this often, and drops the future.
    SendAndDrop(u64),
    Receive,
    TryReceive,
    ReceiveAndDrop(u64),
    Cancel(usize),
    /// Closes the ends of a task, or opens a new receiver for it if there is such a thing.
    CloseSend(usize),
    CloseReceive(usize),
}

fn draw(random: &mut Random) -> Step {
    let other = random.index(TASKS);
    let what = match random.below(32) {
        0..=2 => What::Yield,
        3 | 4 => What::Sleep(random.below(10)),
        5..=10 => What::Send,
        11 | 12 => What::TrySend,
        13 | 14 => What::SendAndDrop(random.below(4)),
        15..=20 => What::Receive,
        21 | 22 => What::TryReceive,
        23..=25 => What::ReceiveAndDrop(random.below(4)),
        26..=29 => What::Cancel(other),
        30 => What::CloseSend(other),
        _ => What::CloseReceive(other),
    };
    let task = random.index(TASKS);
    Step { task, what }
}

/// The result of an operation; `None` stands for the result of a successful send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Sent,
    Got(u64),
    Closed,
    Broken,
    End,
    Cancelled,
    WouldBlock,
    Lagged(u64),
}

impl From<Result<(), SendError<u64>>> for Said {
    fn from(result: Result<(), SendError<u64>>) -> Self {
        match result {
            Ok(()) => Self::Sent,
            Err(SendError::Closed(_)) => Self::Closed,
            Err(SendError::Broken(_)) => Self::Broken,
            Err(_) => Self::Cancelled,
        }
    }
}

impl From<Result<u64, ReceiveError>> for Said {
    fn from(result: Result<u64, ReceiveError>) -> Self {
        match result {
            Ok(value) => Self::Got(value),
            Err(ReceiveError::Closed) => Self::Closed,
            Err(ReceiveError::EndOfChannel) => Self::End,
            Err(_) => Self::Cancelled,
        }
    }
}

impl From<Result<(), TrySendError<u64>>> for Said {
    fn from(result: Result<(), TrySendError<u64>>) -> Self {
        match result {
            Ok(()) => Self::Sent,
            Err(TrySendError::Closed(_)) => Self::Closed,
            Err(TrySendError::Broken(_)) => Self::Broken,
            Err(_) => Self::WouldBlock,
        }
    }
}

impl From<Result<u64, TryReceiveError>> for Said {
    fn from(result: Result<u64, TryReceiveError>) -> Self {
        match result {
            Ok(value) => Self::Got(value),
            Err(TryReceiveError::Closed) => Self::Closed,
            Err(TryReceiveError::EndOfChannel) => Self::End,
            Err(_) => Self::WouldBlock,
        }
    }
}

/// The ends of a task in the channel that is tested.
trait Ends {
    async fn send(&self, value: u64) -> Said;
    fn try_send(&self, value: u64) -> Said;
    async fn receive(&self) -> Said;
    fn try_receive(&self) -> Said;
    fn close_send(&self);
    fn close_receive(&self);
    /// How many values are in the buffer, how many senders wait, and how many receivers.
    fn numbers(&self) -> [usize; 3];
}

macro_rules! ends {
    ($send:ty, $receive:ty) => {
        impl Ends for ($send, $receive) {
            async fn send(&self, value: u64) -> Said {
                self.0.send(value).await.into()
            }
            fn try_send(&self, value: u64) -> Said {
                self.0.try_send(value).into()
            }
            async fn receive(&self) -> Said {
                self.1.receive().await.into()
            }
            fn try_receive(&self) -> Said {
                self.1.try_receive().into()
            }
            fn close_send(&self) {
                self.0.close();
            }
            fn close_receive(&self) {
                self.1.close();
            }
            fn numbers(&self) -> [usize; 3] {
                let now = self.0.statistics();
                assert_eq!(now, self.1.statistics(), "the same from either end");
                [
                    now.current_buffer_used,
                    now.tasks_waiting_send,
                    now.tasks_waiting_receive,
                ]
            }
        }
    };
}

ends!(MemorySendChannel<u64>, MemoryReceiveChannel<u64>);
ends!(ThreadSendChannel<u64>, ThreadReceiveChannel<u64>);

/// The model's answer to a call.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Says(Said),
    Waits(u64),
}

/// The plain model of a channel.
#[derive(Debug, Default)]
struct Plain {
    capacity: usize,
    buffer: VecDeque<u64>,
    /// The calls that wait: the number of the call, the task, and the value.
    sending: VecDeque<(u64, usize, u64)>,
    receiving: VecDeque<(u64, usize)>,
    /// What has been decided about calls that waited; `None` if they have to look for themselves.
    decided: HashMap<u64, Option<Said>>,
    send_closed: [bool; TASKS],
    receive_closed: [bool; TASKS],
    next: u64,
    /// Whether a cancelled call stands in line until its task runs, and may be given something
    /// until then, because the givers do not ask its run.
    remote: bool,
    /// Those that have been cancelled: their result, unless they are given something.
    cancelled: HashSet<u64>,
}

impl Plain {
    fn wait(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn try_send(&mut self, task: usize, value: u64) -> Said {
        if self.send_closed[task] {
            return Said::Closed;
        }
        if self.receive_closed == [true; TASKS] {
            return Said::Broken;
        }
        if let Some((id, _)) = self.receiving.pop_front() {
            self.decided.insert(id, Some(Said::Got(value)));
        } else if self.buffer.len() < self.capacity {
            self.buffer.push_back(value);
        } else {
            return Said::WouldBlock;
        }
        Said::Sent
    }

    fn try_receive(&mut self, task: usize) -> Said {
        if self.receive_closed[task] {
            return Said::Closed;
        }
        // A channel may hold more than its capacity, when something was given back.
        let value = self.buffer.pop_front();
        if value.is_none() || self.buffer.len() < self.capacity {
            if let Some((id, _, next)) = self.sending.pop_front() {
                self.decided.insert(id, Some(Said::Sent));
                self.buffer.push_back(next);
            }
        }
        match value.or_else(|| self.buffer.pop_front()) {
            Some(value) => Said::Got(value),
            None if self.send_closed == [true; TASKS] => Said::End,
            None => Said::WouldBlock,
        }
    }

    fn send(&mut self, task: usize, value: u64) -> Asked {
        match self.try_send(task, value) {
            Said::WouldBlock => {
                let id = self.wait();
                self.sending.push_back((id, task, value));
                Asked::Waits(id)
            }
            said => Asked::Says(said),
        }
    }

    fn receive(&mut self, task: usize) -> Asked {
        match self.try_receive(task) {
            Said::WouldBlock => {
                let id = self.wait();
                self.receiving.push_back((id, task));
                Asked::Waits(id)
            }
            said => Asked::Says(said),
        }
    }

    /// Takes a call that still stands in line out of it.
    fn leave(&mut self, id: u64, decision: Option<Said>) {
        let before = self.sending.len() + self.receiving.len();
        self.sending.retain(|(other, ..)| *other != id);
        self.receiving.retain(|(other, _)| *other != id);
        if self.sending.len() + self.receiving.len() < before {
            self.decided.insert(id, decision);
        }
    }

    /// The result of a call that waited, now that its task runs.
    fn learn(&mut self, id: u64, look: impl FnOnce(&mut Self) -> Said) -> Said {
        match self.decided.remove(&id) {
            Some(Some(said)) => said,
            Some(None) if !self.cancelled.contains(&id) => look(self),
            _ => {
                self.leave(id, None);
                self.decided.remove(&id);
                Said::Cancelled
            }
        }
    }

    fn cancel(&mut self, id: u64) {
        match self.remote {
            true => drop(self.cancelled.insert(id)),
            false => self.leave(id, Some(Said::Cancelled)),
        }
    }

    /// A receive has been dropped with a value in its hands.
    fn give_back(&mut self, value: u64) {
        if self.receive_closed == [true; TASKS] {
            return;
        }
        match self.receiving.pop_front() {
            Some((id, _)) => drop(self.decided.insert(id, Some(Said::Got(value)))),
            None => self.buffer.push_front(value),
        }
    }

    fn close_send(&mut self, task: usize) {
        self.send_closed[task] = true;
        let own = |of: &&(u64, usize, u64)| of.1 == task;
        for (id, ..) in self.sending.clone().iter().filter(own) {
            self.leave(*id, None);
        }
        if self.send_closed == [true; TASKS] {
            for (id, _) in self.receiving.clone() {
                self.leave(id, None);
            }
        }
    }

    fn close_receive(&mut self, task: usize) {
        self.receive_closed[task] = true;
        let own = |of: &&(u64, usize)| of.1 == task;
        for (id, _) in self.receiving.clone().iter().filter(own) {
            self.leave(*id, None);
        }
        if self.receive_closed == [true; TASKS] {
            self.buffer.clear();
            for (id, ..) in self.sending.clone() {
                self.leave(id, None);
            }
        }
    }

    fn numbers(&self) -> [usize; 3] {
        [self.buffer.len(), self.sending.len(), self.receiving.len()]
    }
}

/// The call that a task is in: its scope, and its number in the model.
#[derive(Debug, Default)]
struct Calls {
    of: RefCell<Vec<Option<(CancelScope, u64)>>>,
    ended: Cell<usize>,
    values: Cell<u64>,
}

impl Calls {
    fn new() -> Self {
        Self {
            of: RefCell::new(vec![None; TASKS]),
            ..Self::default()
        }
    }

    /// Runs a call that waits, so that others can cancel it.
    async fn wait(&self, task: usize, id: u64, call: impl Future<Output = Said>) -> Result<Said> {
        let scope = CancelScope::new();
        self.of.borrow_mut()[task] = Some((scope.clone(), id));
        // The result is returned as a value, so that the scope does not catch an error.
        let said = scope.enter(async { Ok(call.await) }).await?;
        self.of.borrow_mut()[task] = None;
        Ok(said.expect("no error leaves the scope"))
    }

    fn cancel(&self, task: usize, plain: impl FnOnce(u64)) {
        let call = self.of.borrow()[task].clone();
        if let Some((scope, id)) = call {
            plain(id);
            scope.cancel("by the program");
        }
    }

    fn value(&self) -> u64 {
        self.values.set(self.values.get() + 1);
        self.values.get()
    }

    /// Cancels all calls that still wait when nothing else can happen any more.
    async fn reap(&self, plain: impl Fn(u64)) -> Result<()> {
        while self.ended.get() < TASKS {
            sleep(secs(10_000)).await?;
            (0..TASKS).for_each(|task| self.cancel(task, &plain));
        }
        Ok(())
    }

    fn end(&self) {
        self.ended.set(self.ended.get() + 1);
    }
}

struct World<'a, E> {
    ends: &'a [E],
    plain: RefCell<Plain>,
    calls: Calls,
}

impl<E: Ends> World<'_, E> {
    async fn task(&self, task: usize, program: &[Step]) -> Result<()> {
        for step in program.iter().filter(|step| step.task == task) {
            if let Some((found, expected)) = self.step(task, &step.what).await? {
                agree(&found, &expected, step, &self.plain)?;
            }
            let expected = self.plain.borrow().numbers();
            agree(&self.ends[task].numbers(), &expected, step, &self.plain)?;
        }
        self.calls.end();
        Ok(())
    }

    async fn step(&self, task: usize, what: &What) -> Result<Option<(Said, Said)>> {
        let own = &self.ends[task];
        let plain = || self.plain.borrow_mut();
        Ok(match *what {
            What::Yield => {
                checkpoint().await?;
                None
            }
            What::Sleep(seconds) => {
                sleep(secs(seconds)).await?;
                None
            }
            What::Send => {
                let value = self.calls.value();
                let asked = plain().send(task, value);
                let look = |plain: &mut Plain| plain.try_send(task, value);
                Some(self.call(task, asked, own.send(value), look).await?)
            }
            What::Receive => {
                let asked = plain().receive(task);
                let look = |plain: &mut Plain| plain.try_receive(task);
                Some(self.call(task, asked, own.receive(), look).await?)
            }
            What::TrySend => {
                let value = self.calls.value();
                let expected = plain().try_send(task, value);
                Some((own.try_send(value), expected))
            }
            What::TryReceive => {
                let expected = plain().try_receive(task);
                Some((own.try_receive(), expected))
            }
            What::SendAndDrop(yields) => {
                let value = self.calls.value();
                let asked = plain().send(task, value);
                self.begin_and_drop(asked, own.send(value), yields).await?
            }
            What::ReceiveAndDrop(yields) => {
                let asked = plain().receive(task);
                self.begin_and_drop(asked, own.receive(), yields).await?
            }
            What::Cancel(other) => {
                let cancel = |id| plain().cancel(id);
                self.calls.cancel(other, cancel);
                None
            }
            What::CloseSend(other) => {
                plain().close_send(other);
                self.ends[other].close_send();
                None
            }
            What::CloseReceive(other) => {
                plain().close_receive(other);
                self.ends[other].close_receive();
                None
            }
        })
    }

    /// The result of a call, and the model's answer to it.
    async fn call(
        &self,
        task: usize,
        asked: Asked,
        call: impl Future<Output = Said>,
        look: impl FnOnce(&mut Plain) -> Said,
    ) -> Result<(Said, Said)> {
        Ok(match asked {
            Asked::Says(expected) => (call.await, expected),
            Asked::Waits(id) => {
                let found = self.calls.wait(task, id, call).await?;
                (found, self.plain.borrow_mut().learn(id, look))
            }
        })
    }

    async fn begin_and_drop(
        &self,
        asked: Asked,
        call: impl Future<Output = Said>,
        yields: u64,
    ) -> Result<Option<(Said, Said)>> {
        let mut call = Box::pin(call);
        let polled = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await;
        let id = match (asked, polled) {
            (Asked::Says(expected), Poll::Ready(found)) => return Ok(Some((found, expected))),
            (Asked::Says(expected), Poll::Pending) => {
                return Ok(Some((Said::WouldBlock, expected)));
            }
            (Asked::Waits(_), Poll::Ready(found)) => return Ok(Some((found, Said::WouldBlock))),
            (Asked::Waits(id), Poll::Pending) => id,
        };
        for _ in 0..yields {
            checkpoint().await?;
        }
        {
            let mut plain = self.plain.borrow_mut();
            plain.leave(id, None);
            if let Said::Got(value) = plain.learn(id, |_| Said::WouldBlock) {
                plain.give_back(value);
            }
        }
        drop(call);
        Ok(None)
    }
}

fn channel<E: Ends>(name: &str, remote: bool, open: impl Fn(usize) -> E, clone: impl Fn(&E) -> E) {
    check(name, draw, |program, seed| {
        let capacity = usize::try_from(seed % 4).expect("below four");
        let mut ends = vec![open(capacity)];
        ends.extend((1..TASKS).map(|_| clone(&ends[0])).collect::<Vec<_>>());
        let world = World {
            ends: &ends,
            plain: RefCell::new(Plain {
                capacity,
                remote,
                ..Plain::default()
            }),
            calls: Calls::new(),
        };
        simulate(seed, async {
            open_nursery(async |nursery| {
                for task in 0..TASKS {
                    nursery.start_soon(world.task(task, program));
                }
                let cancel = |id| world.plain.borrow_mut().cancel(id);
                world.calls.reap(cancel).await
            })
            .await?;
            let [_, sending, receiving] = ends[0].numbers();
            agree(&[sending, receiving], &[0, 0], &"the end", &world.plain)
        })
    });
}

#[test]
fn m1_channels_do_what_the_model_says_for_every_seed() {
    let clone = |(send, receive): &(MemorySendChannel<_>, MemoryReceiveChannel<_>)| {
        (send.clone(), receive.clone())
    };
    channel("channel of a run", false, open_memory_channel, clone);
}

#[test]
fn tc2_channels_between_threads_do_what_the_model_says_for_every_seed() {
    let clone = |(send, receive): &(ThreadSendChannel<_>, ThreadReceiveChannel<_>)| {
        (send.clone(), receive.clone())
    };
    channel("channel between threads", true, open_thread_channel, clone);
}

/// The plain model of a broadcast: everything that was ever sent, and how far each receiver has
/// read.
#[derive(Debug)]
struct Log {
    capacity: usize,
    lagging: bool,
    sent: Vec<u64>,
    /// `None` while a task has no receiver.
    read: [Option<usize>; TASKS],
    sending: VecDeque<(u64, u64)>,
    receiving: Vec<(u64, usize)>,
    decided: HashMap<u64, Option<Said>>,
    next: u64,
}

impl Log {
    fn room(&self) -> bool {
        let slowest = self.read.iter().flatten().min();
        self.lagging || slowest.is_none_or(|slowest| self.sent.len() - slowest < self.capacity)
    }

    fn waiting(&self) -> [usize; 2] {
        [self.sending.len(), self.receiving.len()]
    }

    fn push(&mut self, value: u64) {
        self.sent.push(value);
        for (id, _) in self.receiving.drain(..) {
            self.decided.insert(id, None);
        }
    }

    fn fill(&mut self) {
        while self.room() {
            let Some((id, value)) = self.sending.pop_front() else {
                return;
            };
            self.push(value);
            self.decided.insert(id, Some(Said::Sent));
        }
    }

    fn try_send(&mut self, value: u64) -> Said {
        if !self.room() {
            return Said::WouldBlock;
        }
        self.push(value);
        Said::Sent
    }

    fn try_receive(&mut self, task: usize) -> Said {
        let tail = self.sent.len();
        let Some(read) = &mut self.read[task] else {
            return Said::Closed;
        };
        if self.lagging && tail > *read + self.capacity {
            let missed = tail - self.capacity - *read;
            *read += missed;
            return Said::Lagged(missed as u64);
        }
        if *read == tail {
            return Said::WouldBlock;
        }
        *read += 1;
        let value = self.sent[*read - 1];
        self.fill();
        Said::Got(value)
    }

    fn ask(&mut self, said: Said, stand: impl FnOnce(&mut Self, u64)) -> Asked {
        match said {
            Said::WouldBlock => {
                self.next += 1;
                let id = self.next;
                stand(self, id);
                Asked::Waits(id)
            }
            said => Asked::Says(said),
        }
    }

    fn leave(&mut self, id: u64, decision: Option<Said>) {
        let before = self.sending.len() + self.receiving.len();
        self.sending.retain(|(other, _)| *other != id);
        self.receiving.retain(|(other, _)| *other != id);
        if self.sending.len() + self.receiving.len() < before {
            self.decided.insert(id, decision);
        }
    }

    fn learn(&mut self, id: u64, task: usize) -> Said {
        match self.decided.remove(&id) {
            Some(Some(said)) => said,
            Some(None) => self.try_receive(task),
            None => Said::WouldBlock,
        }
    }
}

fn heard(result: Result<u64, BroadcastError>) -> Said {
    match result {
        Ok(value) => Said::Got(value),
        Err(BroadcastError::Lagged(count)) => Said::Lagged(count),
        Err(BroadcastError::Closed) => Said::Closed,
        Err(BroadcastError::EndOfChannel) => Said::End,
        Err(_) => Said::Cancelled,
    }
}

struct Audience<'a> {
    send: &'a BroadcastSendChannel<u64>,
    log: RefCell<Log>,
    calls: Calls,
}

impl Audience<'_> {
    async fn task(
        &self,
        task: usize,
        program: &[Step],
        mut receive: BroadcastReceiveChannel<u64>,
    ) -> Result<()> {
        for step in program.iter().filter(|step| step.task == task) {
            let log = || self.log.borrow_mut();
            match step.what {
                What::Yield => checkpoint().await?,
                What::Sleep(seconds) => sleep(secs(seconds)).await?,
                What::Send | What::SendAndDrop(_) => {
                    let value = self.calls.value();
                    let said = log().try_send(value);
                    let stand = |log: &mut Log, id| log.sending.push_back((id, value));
                    let asked = log().ask(said, stand);
                    let call = async { Said::from(self.send.send(value).await.map(drop)) };
                    let (found, expected) = self.call(task, asked, call).await?;
                    agree(&found, &expected, step, &self.log)?;
                }
                What::TrySend => {
                    let value = self.calls.value();
                    let expected = log().try_send(value);
                    let found = Said::from(self.send.try_send(value).map(drop));
                    agree(&found, &expected, step, &self.log)?;
                }
                What::Receive | What::TryReceive | What::ReceiveAndDrop(_) => {
                    let said = log().try_receive(task);
                    let stand = |log: &mut Log, id| log.receiving.push((id, task));
                    let asked = log().ask(said, stand);
                    let call = async { heard(receive.receive().await) };
                    let (found, expected) = self.call(task, asked, call).await?;
                    agree(&found, &expected, step, &self.log)?;
                }
                What::Cancel(other) => {
                    let cancel = |id| log().leave(id, Some(Said::Cancelled));
                    self.calls.cancel(other, cancel);
                }
                What::CloseSend(_) => {
                    receive = self.send.subscribe();
                    let tail = log().sent.len();
                    log().read[task] = Some(tail);
                    log().fill();
                }
                What::CloseReceive(_) => {
                    log().read[task] = None;
                    log().fill();
                    receive.close();
                }
            }
            let now = self.send.statistics();
            let found = [now.tasks_waiting_send, now.tasks_waiting_receive];
            let expected = log().waiting();
            agree(&found, &expected, step, &self.log)?;
        }
        log_end(&self.log, task);
        drop(receive);
        self.calls.end();
        Ok(())
    }

    async fn call(
        &self,
        task: usize,
        asked: Asked,
        call: impl Future<Output = Said>,
    ) -> Result<(Said, Said)> {
        Ok(match asked {
            Asked::Says(expected) => (call.await, expected),
            Asked::Waits(id) => {
                let found = self.calls.wait(task, id, call).await?;
                (found, self.log.borrow_mut().learn(id, task))
            }
        })
    }
}

/// A task that ends drops its receiver.
fn log_end(log: &RefCell<Log>, task: usize) {
    log.borrow_mut().read[task] = None;
    log.borrow_mut().fill();
}

fn broadcast(name: &str, lagging: bool) {
    check(name, draw, |program, seed| {
        let capacity = 1 + usize::try_from(seed % 3).expect("below three");
        let (send, receive) = match lagging {
            true => open_lagging_broadcast_channel(capacity),
            false => open_broadcast_channel(capacity),
        };
        let audience = Audience {
            send: &send,
            log: RefCell::new(Log {
                capacity,
                lagging,
                sent: Vec::new(),
                read: [Some(0); TASKS],
                sending: VecDeque::new(),
                receiving: Vec::new(),
                decided: HashMap::new(),
                next: 0,
            }),
            calls: Calls::new(),
        };
        let receivers = vec![receive; TASKS];
        let audience = &audience;
        simulate(seed, async move {
            open_nursery(async |nursery| {
                for (task, receive) in receivers.into_iter().enumerate() {
                    nursery.start_soon(audience.task(task, program, receive));
                }
                let cancel = |id| audience.log.borrow_mut().leave(id, Some(Said::Cancelled));
                audience.calls.reap(cancel).await
            })
            .await?;
            let left = audience.send.statistics();
            agree(&left.current_buffer_used, &0, &"the end", &audience.log)
        })
    });
}

#[test]
fn br1_broadcasts_do_what_the_model_says_for_every_seed() {
    broadcast("broadcast", false);
}

#[test]
fn br2_lagging_broadcasts_do_what_the_model_says_for_every_seed() {
    broadcast("lagging broadcast", true);
}

/// All tasks set and read a watch; the model is the number that was set last, and what each task
/// has seen.
#[test]
fn wv1_watches_do_what_the_model_says_for_every_seed() {
    check("watch", draw, |program, seed| {
        let (send, receive) = open_watch_channel(0);
        let latest = Cell::new(0_u64);
        let calls = Calls::new();
        let (send, latest, calls) = (&send, &latest, &calls);
        let receivers = vec![receive; TASKS];
        simulate(seed, async move {
            open_nursery(async |nursery| {
                for (task, receive) in receivers.into_iter().enumerate() {
                    nursery.start_soon(watch(task, program, send, receive, latest, calls));
                }
                calls.reap(|_| {}).await
            })
            .await?;
            agree(&send.statistics().tasks_waiting, &0, &"the end", &latest)
        })
    });
}

async fn watch(
    task: usize,
    program: &[Step],
    send: &WatchSender<u64>,
    mut receive: WatchReceiver<u64>,
    latest: &Cell<u64>,
    calls: &Calls,
) -> Result<()> {
    let mut seen = 0;
    for step in program.iter().filter(|step| step.task == task) {
        match step.what {
            What::Yield => checkpoint().await?,
            What::Sleep(seconds) => sleep(secs(seconds)).await?,
            What::Send | What::TrySend | What::SendAndDrop(_) => {
                latest.set(calls.value());
                send.send(latest.get());
            }
            What::Receive => {
                let call = async { Said::from(receive.changed().await.map(|value| *value)) };
                let ready = seen != latest.get();
                match calls.wait(task, 0, call).await? {
                    Said::Cancelled => agree(&ready, &false, step, &latest)?,
                    found => agree(&found, &Said::Got(latest.get()), step, &latest)?,
                }
                seen = *receive.get_seen();
                agree(&seen, &latest.get(), step, &latest)?;
            }
            What::ReceiveAndDrop(more) => {
                let wanted = seen + more;
                let waiting = receive.wait_for(|value| *value >= wanted);
                let call = async { Said::from(waiting.await.map(|value| *value)) };
                let ready = latest.get() >= wanted;
                match calls.wait(task, 0, call).await? {
                    Said::Cancelled => agree(&ready, &false, step, &latest)?,
                    found => agree(&found, &Said::Got(latest.get()), step, &latest)?,
                }
                seen = *receive.get_seen();
            }
            What::TryReceive => {
                let changed = seen != latest.get();
                agree(&receive.has_changed(), &changed, step, &latest)?;
                agree(&*receive.get(), &latest.get(), step, &latest)?;
            }
            What::Cancel(other) => calls.cancel(other, |_| {}),
            What::CloseSend(_) | What::CloseReceive(_) => {
                receive = send.subscribe();
                seen = latest.get();
            }
        }
    }
    calls.end();
    Ok(())
}
