//! Which of `Send`, `Sync` and `Unpin` each public type is, checked by the compiler.
//!
//! Nothing that belongs to a run leaves its thread. Plain values may: errors, moments, settings. A
//! future of this library that a program would poll by hand can be polled in place, without pinning
//! it first.

use std::marker::PhantomData;

/// Answers for `T`: the inherent constants exist only where the bound holds, and take precedence
/// over those of the traits.
struct Ask<T>(PhantomData<T>);

trait Otherwise {
    const SEND: bool = false;
    const SYNC: bool = false;
    const UNPIN: bool = false;
}

impl<T> Otherwise for Ask<T> {}

impl<T: Send> Ask<T> {
    const SEND: bool = true;
}

impl<T: Sync> Ask<T> {
    const SYNC: bool = true;
}

impl<T: Unpin> Ask<T> {
    const UNPIN: bool = true;
}

macro_rules! table {
    ($($type:ty: $send:literal $sync:literal $unpin:literal;)*) => {
        $(
            const _: () = assert!(Ask::<$type>::SEND == ($send == 'S'), concat!(stringify!($type), ": Send"));
            const _: () = assert!(Ask::<$type>::SYNC == ($sync == 'Y'), concat!(stringify!($type), ": Sync"));
            const _: () = assert!(Ask::<$type>::UNPIN == ($unpin == 'U'), concat!(stringify!($type), ": Unpin"));
        )*
    };
}

/// A future that has none of the three on its own, as the future of `async` code may be.
struct Pinned(PhantomData<std::rc::Rc<()>>, std::marker::PhantomPinned);

/// The same, pinned in a box.
type Fixed = std::pin::Pin<Box<Pinned>>;

/// A value that has all three.
type Free = u8;

// `S`: Send. `Y`: Sync. `U`: Unpin. `-`: not.
table! {
    // Tasks and scopes belong to a run.
    trio::Nursery<'static, 'static>: '-' '-' 'U';
    trio::GuestRun: '-' '-' 'U';
    trio::JoinHandle<'static, Free>: '-' '-' 'U';
    trio::Join<'static, Free>: '-' '-' 'U';
    trio::Ended<'static>: '-' '-' 'U';
    trio::Completed<'static, Free>: '-' '-' 'U';
    trio::NextCompleted<'static, Free>: '-' '-' 'U';
    trio::TaskStatus<Free>: '-' '-' 'U';
    trio::CancelScope: '-' '-' 'U';
    trio::RateLimiter: 'S' '-' 'U';
    trio::AcquireRate<'static>: '-' '-' 'U';
    trio::Progress: '-' '-' 'U';
    trio::Supervisor<'static>: '-' '-' 'U';
    // A scope has what its future has: the future of `async` code cannot be moved.
    trio::Enter<Free>: '-' '-' 'U';
    trio::Enter<Pinned>: '-' '-' '-';
    trio::Enter<Fixed>: '-' '-' 'U';
    trio::UntilDraining<Pinned>: '-' '-' '-';
    trio::UntilDraining<Fixed>: '-' '-' 'U';
    trio::MoveOn<Pinned>: '-' '-' '-';
    trio::MoveOn<Fixed>: '-' '-' 'U';
    trio::FailAfter<Pinned>: '-' '-' '-';
    trio::FailAfter<Fixed>: '-' '-' 'U';
    // What waits has a place in its run.
    trio::Sleep: '-' '-' 'U';
    trio::SleepForever: '-' '-' 'U';
    trio::lowlevel::Submit<'static>: '-' '-' 'U';
    trio::lowlevel::OrphansGone: '-' '-' 'U';
    trio::lowlevel::ReceiveBlock<'static>: '-' '-' 'U';
    trio::lowlevel::ReceiveInto<'static>: '-' '-' 'U';
    trio::lowlevel::Gate: '-' '-' 'U';
    trio::lowlevel::WeakDescriptor: '-' '-' 'U';
    trio::testing::WaitAllTasksBlocked: '-' '-' 'U';
    trio::testing::Sequencer: '-' '-' 'U';
    trio::testing::WaitTurn<'static>: '-' '-' 'U';
    trio::testing::Turn<'static>: '-' '-' 'U';
    trio::testing::AssertCheckpoints<Fixed>: '-' '-' 'U';
    trio::testing::AssertNoCheckpoints<Pinned>: '-' '-' '-';
    trio::testing::MemoryStream: '-' '-' 'U';
    trio::testing::LockstepStream: '-' '-' 'U';
    trio::to_thread::RunSync<fn(), Free>: '-' '-' 'U';
    trio::testing::WaitAllThreadsCompleted: '-' '-' 'U';
    // Bound values belong to the tasks that see them; a variable is just a name.
    trio::InLocal<Fixed>: '-' '-' 'U';
    trio::InLocal<Pinned>: '-' '-' '-';
    trio::TaskLocal<Pinned>: 'S' 'Y' 'U';
    trio::TreeVar<Pinned>: 'S' 'Y' 'U';
    trio::lowlevel::RunVar<Pinned>: 'S' 'Y' 'U';
    trio::lowlevel::RunVarToken<Free>: '-' '-' 'U';
    // What reaches a run from elsewhere may go anywhere.
    trio::lowlevel::TrioToken: 'S' 'Y' 'U';
    trio::lowlevel::TokenStatistics: 'S' 'Y' 'U';
    trio::lowlevel::ThreadStatistics: 'S' 'Y' 'U';
    trio::Worker: 'S' 'Y' 'U';
    trio::Workers: 'S' 'Y' 'U';
    // A checkpoint is a flag, and uses whatever run it is polled in.
    trio::Checkpoint: 'S' 'Y' 'U';
    trio::lowlevel::CheckpointIfCancelled: 'S' 'Y' 'U';
    trio::lowlevel::ShieldedCheckpoint: 'S' 'Y' 'U';
    // A channel of a run stays there; one between threads goes where its values may go.
    trio::MemorySendChannel<Free>: '-' '-' 'U';
    trio::MemoryReceiveChannel<Free>: '-' '-' 'U';
    trio::channel::Sending<'static, Fixed>: '-' '-' 'U';
    trio::channel::Receiving<'static, Free>: '-' '-' 'U';
    trio::channel::Next<'static, Free>: '-' '-' 'U';
    trio::channel::Aclose<'static>: '-' '-' 'U';
    trio::channel::Select<Vec<trio::channel::Receiving<'static, Free>>>: '-' '-' 'U';
    trio::channel::BroadcastSendChannel<Free>: '-' '-' 'U';
    trio::channel::BroadcastReceiveChannel<Free>: '-' '-' 'U';
    trio::channel::BroadcastSending<'static, Free>: '-' '-' 'U';
    trio::channel::BroadcastReceiving<'static, Free>: '-' '-' 'U';
    trio::channel::WatchSender<Free>: '-' '-' 'U';
    trio::channel::WatchReceiver<Free>: '-' '-' 'U';
    trio::channel::Changed<'static, Free>: '-' '-' 'U';
    trio::channel::WaitFor<'static, Free, fn(&Free) -> bool>: '-' '-' 'U';
    trio::channel::Yielder<Free>: '-' '-' 'U';
    trio::channel::ThreadSendChannel<Free>: 'S' 'Y' 'U';
    trio::channel::ThreadReceiveChannel<Free>: 'S' 'Y' 'U';
    trio::channel::ThreadSendChannel<Pinned>: '-' '-' 'U';
    trio::channel::ThreadReceiveChannel<Pinned>: '-' '-' 'U';
    trio::channel::ThreadSending<'static, Free>: '-' '-' 'U';
    trio::channel::ThreadReceiving<'static, Free>: '-' '-' 'U';
    trio::channel::ThreadNext<'static, Free>: '-' '-' 'U';
    trio::channel::SendError<Free>: 'S' 'Y' 'U';
    trio::channel::TrySendError<Free>: 'S' 'Y' 'U';
    trio::channel::ReceiveError: 'S' 'Y' 'U';
    trio::channel::TryReceiveError: 'S' 'Y' 'U';
    trio::channel::BroadcastError: 'S' 'Y' 'U';
    trio::channel::TryBroadcastError: 'S' 'Y' 'U';
    trio::channel::Lagged: 'S' 'Y' 'U';
    // Errors and other values go anywhere.
    trio::Error: 'S' 'Y' 'U';
    trio::Cancelled: 'S' 'Y' 'U';
    trio::CancelSource: 'S' 'Y' 'U';
    trio::ChildState: 'S' 'Y' 'U';
    trio::NoValue: 'S' 'Y' 'U';
    trio::RateLimiterStatistics: 'S' 'Y' 'U';
    trio::Backoff: 'S' 'Y' 'U';
    trio::Failure<'static>: 'S' 'Y' 'U';
    trio::Verdict: 'S' 'Y' 'U';
    trio::BrokenResource: 'S' 'Y' 'U';
    trio::BusyResource: 'S' 'Y' 'U';
    trio::ClosedResource: 'S' 'Y' 'U';
    trio::EndOfChannel: 'S' 'Y' 'U';
    trio::WouldBlock: 'S' 'Y' 'U';
    trio::NestedTooDeeply: 'S' 'Y' 'U';
    trio::RunFinished: 'S' 'Y' 'U';
    trio::TooSlow: 'S' 'Y' 'U';
    trio::Usage: 'S' 'Y' 'U';
    trio::Leaves<'static>: 'S' 'Y' 'U';
    trio::Time: 'S' 'Y' 'U';
    trio::Backend: 'S' 'Y' 'U';
    trio::BackendInfo: 'S' 'Y' 'U';
    trio::lowlevel::DriverStatistics: 'S' 'Y' 'U';
    trio::lowlevel::TaskTree: 'S' 'Y' 'U';
    trio::instrument::Task: 'S' 'Y' 'U';
    trio::instrument::TaskId: 'S' 'Y' 'U';
    trio::instrument::InstrumentKey: 'S' 'Y' 'U';
    trio::io::StapledStream<Free, Free>: 'S' 'Y' 'U';
    trio::net::Bind: 'S' 'Y' 'U';
    // Sockets belong to a run, and so does the memory that they read into.
    trio::net::TcpStream: '-' '-' 'U';
    trio::net::TcpListener: '-' '-' 'U';
    trio::net::Server<'static, fn()>: '-' '-' 'U';
    trio::io::Lease: '-' '-' 'U';
    trio::io::Outgoing<'static>: '-' '-' 'U';
    trio::lowlevel::Descriptor: '-' '-' 'U';
    trio::lowlevel::Pool: '-' '-' 'U';
    trio::lowlevel::Operation: '-' '-' 'U';
    trio::lowlevel::Finished: '-' '-' 'U';
    // A run is begun where it runs; a simulated world can be inspected from another thread.
    trio::Builder: '-' '-' 'U';
    trio::testing::MockClock: '-' '-' 'U';
    trio::testing::Simulation: 'S' 'Y' 'U';
}
