//! Tasks: one allocation each, polled only from inside their nursery, woken in constant time.
//!
//! A *node* is anything that can be woken: a task, or the body of a nursery. It is counted without
//! atomics, by handles ([`NodeRef`]) that never leave the thread.
//!
//! 1. A node is in the ready queue of its home nursery if and only if its `READY` flag is set. The
//!    queue sets it when it takes the node in, and clears it when the nursery takes the node out to
//!    poll it.
//! 2. Waking a node wakes the task in which its nursery is polled, and so on up to the root; it
//!    stops at the first nursery that has been notified already, or is being polled. That nursery
//!    checks at the end of its poll whether anything is left for the next turn, and if so asks for
//!    the node in whose poll it is polled to be polled again: the nursery that polls that node sees
//!    to it.
//! 3. A node that is woken carries the number of the turn. A nursery polls only nodes woken before
//!    the turn began, so that a task that wakes itself waits for the next.
//! 4. The future of a task is polled and dropped only by the nursery that is its home, from inside
//!    the future of that nursery (`nursery/erase.rs` says why that makes borrowing sound). The
//!    memory of the node may live longer; it then holds neither future nor output.
//! 5. A [`Waker`](std::task::Waker) that is cloned holds a *remote*, which is shared between
//!    threads and knows the node only while the node lives. Wakes from other threads go through
//!    the inbox of the run; wakes from the thread of the run touch no atomic read-modify-write.
//! 6. A node is linked into lists through itself, and each list counts one handle to it: the ready
//!    queue of rule 1, and one list of siblings, which is that of the children of its home for a
//!    task, and that of the nurseries of the run for a body.
//! 7. A node that is ready for nothing but what is ready in a nursery inside it says so. A nursery
//!    whose poll lies in the steps of such nodes only, up to the root, makes the next turn itself if
//!    nothing else is ready and the loop would find nothing to do: nobody waits for that poll to end.

mod local;
#[expect(unsafe_code, reason = "the memory of a task, and its wakers")]
mod raw;

pub(crate) use local::{Id, Locals};
pub use local::{InLocal, TaskLocal, TreeVar};
pub(crate) use raw::{
    Birth, Current, NodeRef, NurseryRef, Output, ReadyQueue, Reason, Remote, Siblings, TaskInfo,
};
pub(crate) use raw::{clear_blocks, is_of_a_node, new_silent_task, new_task, tidy_type_name};
