//! Values that are local to a task, and go from task to task when one is spawned.
//!
//! A value is bound for the time of a future ([`TaskLocal::scope`]) and found again by everything
//! that the future calls, and by the tasks that are spawned under it. Which of two ways it goes then
//! is what tells the two kinds apart:
//!
//! - A [`TaskLocal`] goes from the *spawner*: a child sees what the code saw that called
//!   `start_soon`. Right for what belongs to the work: a request, a trace, a user.
//! - A [`TreeVar`] goes from the *nursery*: a child sees what the code saw that called
//!   `open_nursery`, whoever spawns it. Right for what lives as long as a block does: whatever is
//!   open around the nursery is open as long as the child lives, and what is open around a call of
//!   `start_soon` need not be. Cancel scopes go the same way.
//!
//! What a node knows is one word: nothing, or a counted pair of lists that are never changed, only
//! added to in front. The lists are as long as scopes lie inside each other, so a look is a short
//! walk. A scope that is dropped, forgotten or left by a panic has put the word back before: it
//! stands there only while its future is being polled.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::{NodeRef, NurseryRef};
use crate::context;
use crate::run::Run;

/// A value for everything that a future does, and for the tasks that it spawns.
///
/// A child sees what its spawner saw; [`TreeVar`] describes the difference. Trio uses
/// `contextvars.ContextVar` for this.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use trio::{TaskLocal, open_nursery};
///
/// static USER: TaskLocal<&str> = TaskLocal::new("user");
///
/// async fn audit() -> trio::Result<()> {
///     assert_eq!(USER.get(), Some("ada"));
///     Ok(())
/// }
///
/// assert_eq!(USER.get(), None);
/// let work = open_nursery(async |nursery| {
///     nursery.start_soon(audit());
///     Ok(())
/// });
/// USER.scope("ada", work).await?;
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[doc(alias = "task_local")]
#[doc(alias = "ContextVar")]
pub struct TaskLocal<T: 'static>(Key<T>);

/// A value for everything in a part of the tree of tasks.
///
/// A child sees what the code that opened its nursery saw, not what its spawner sees. So if a
/// connection pool is open around a nursery, all its children find that one, even a child started
/// by a task that has a pool of its own, which it might close before the child has ended.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use trio::{TreeVar, open_nursery};
///
/// static POOL: TreeVar<&str> = TreeVar::new("pool");
///
/// POOL.scope("outer", open_nursery(async |nursery| {
///     POOL.scope("inner", async {
///         nursery.start_soon(async {
///             assert_eq!(POOL.get(), Some("outer")); // that of the nursery
///             Ok(())
///         });
///         assert_eq!(POOL.get(), Some("inner"));
///     })
///     .await;
///     Ok(())
/// }))
/// .await?;
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
pub struct TreeVar<T: 'static>(Key<T>);

/// What identifies a variable: its name is for people.
struct Key<T> {
    name: &'static str,
    id: Id,
    value: PhantomData<fn() -> T>,
}

/// A number of its own, given on first use, so that a variable can be a `static`.
pub(crate) struct Id(AtomicU64);

impl Id {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn get(&self) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        match self.0.load(Ordering::Relaxed) {
            0 => {
                let mine = NEXT.fetch_add(1, Ordering::Relaxed);
                let order = (Ordering::Relaxed, Ordering::Relaxed);
                match self.0.compare_exchange(0, mine, order.0, order.1) {
                    Ok(_) => mine,
                    Err(theirs) => theirs,
                }
            }
            id => id,
        }
    }
}

impl<T> Key<T> {
    const fn new(name: &'static str) -> Self {
        Self {
            name,
            id: Id::new(),
            value: PhantomData,
        }
    }
}

/// The values that a node has inherited or been given.
#[derive(Clone, Default)]
pub(crate) struct Locals {
    task: Option<Rc<Binding>>,
    tree: Option<Rc<Binding>>,
}

struct Binding {
    id: u64,
    value: Rc<dyn Any>,
    next: Option<Rc<Self>>,
}

impl Locals {
    /// What a new task inherits: from the node that is being polled, and from its nursery.
    #[inline]
    pub(crate) fn of_child(run: &Run, nursery: &NurseryRef) -> Option<Rc<Self>> {
        let spawner = run.current.locals();
        if spawner.is_none() && nursery.locals.is_none() {
            return None;
        }
        Self::merge(spawner, nursery.locals.as_ref())
    }

    #[cold]
    fn merge(spawner: Option<Rc<Self>>, nursery: Option<&Rc<Self>>) -> Option<Rc<Self>> {
        if let (Some(one), Some(other)) = (&spawner, nursery) {
            if Rc::ptr_eq(one, other) {
                return spawner;
            }
        }
        let task = spawner.and_then(|spawner| spawner.task.clone());
        let tree = nursery.and_then(|nursery| nursery.tree.clone());
        (task.is_some() || tree.is_some()).then(|| Rc::new(Self { task, tree }))
    }

    fn list(&mut self, kind: Kind) -> &mut Option<Rc<Binding>> {
        match kind {
            Kind::Task => &mut self.task,
            Kind::Tree => &mut self.tree,
        }
    }

    fn find(&self, kind: Kind, id: u64) -> Option<Rc<dyn Any>> {
        let mut next = match kind {
            Kind::Task => self.task.as_ref(),
            Kind::Tree => self.tree.as_ref(),
        };
        while let Some(binding) = next {
            if binding.id == id {
                return Some(binding.value.clone());
            }
            next = binding.next.as_ref();
        }
        None
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        // By a loop: a list may be as long as scopes lie inside each other.
        let mut next = self.next.take();
        while let Some(binding) = next {
            match Rc::try_unwrap(binding) {
                Ok(mut last) => next = last.next.take(),
                Err(_) => return,
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Task,
    Tree,
}

impl<T: 'static> Key<T> {
    fn with<R>(&self, kind: Kind, look: impl FnOnce(Option<&T>) -> R) -> R {
        let locals = context::with(|run| run.current.locals());
        let value = locals.and_then(|locals| locals.find(kind, self.id.get()));
        look(value.as_ref().and_then(|value| value.downcast_ref()))
    }

    fn scope<F>(&self, kind: Kind, value: T, future: F) -> InLocal<F> {
        let value: Rc<dyn Any> = Rc::new(value);
        InLocal {
            future,
            kind,
            binding: Some((self.id.get(), value)),
            locals: None,
        }
    }

    fn debug(&self, kind: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{kind}({})", self.name)
    }
}

macro_rules! variable {
    ($name:ident, $kind:ident, $inherits:literal) => {
        impl<T: 'static> $name<T> {
            /// A variable without a value; mostly a `static`. The name is for people.
            pub const fn new(name: &'static str) -> Self {
                Self(Key::new(name))
            }

            /// Runs `future` with `value` bound to the variable, for everything inside it and for
            #[doc = $inherits]
            ///
            /// # Cancellation
            ///
            /// Not a checkpoint by itself.
            ///
            /// # Panics
            ///
            /// When it is polled outside of a run.
            pub fn scope<F: Future>(&self, value: T, future: F) -> InLocal<F> {
                self.0.scope(Kind::$kind, value, future)
            }

            /// Calls `look` with the value that is bound here, if one is.
            ///
            /// # Panics
            ///
            /// Outside of a run.
            #[track_caller]
            pub fn with<R>(&self, look: impl FnOnce(Option<&T>) -> R) -> R {
                self.0.with(Kind::$kind, look)
            }

            /// The value that is bound here, if one is.
            ///
            /// # Panics
            ///
            /// Outside of a run.
            #[track_caller]
            pub fn get(&self) -> Option<T>
            where
                T: Clone,
            {
                self.with(|value| value.cloned())
            }
        }

        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.debug(stringify!($name), f)
            }
        }
    };
}

variable!(TaskLocal, Task, "the tasks that are spawned inside it.");
variable!(
    TreeVar,
    Tree,
    "the tasks in nurseries that are opened inside it."
);

pin_project! {
    /// The future of [`TaskLocal::scope`] and [`TreeVar::scope`].
    #[must_use = "futures do nothing unless polled"]
    pub struct InLocal<F> {
        #[pin]
        future: F,
        kind: Kind,
        // What to bind; taken by the first poll.
        binding: Option<(u64, Rc<dyn Any>)>,
        locals: Option<Rc<Locals>>,
    }
}

impl<F: Future> Future for InLocal<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let node = context::with(|run| run.node_or_main());
        if let Some((id, value)) = this.binding.take() {
            let around = node.locals();
            let mut locals = around.map(|around| (*around).clone()).unwrap_or_default();
            let list = locals.list(*this.kind);
            let next = list.take();
            *list = Some(Rc::new(Binding { id, value, next }));
            *this.locals = Some(Rc::new(locals));
        }
        let before = node.replace_locals(this.locals.clone());
        let _restore = Restore { node, before };
        this.future.poll(context)
    }
}

/// Puts back what was there before the poll, also after a panic.
struct Restore {
    node: NodeRef,
    before: Option<Rc<Locals>>,
}

impl Drop for Restore {
    fn drop(&mut self) {
        drop(self.node.replace_locals(self.before.take()));
    }
}

impl<F> fmt::Debug for InLocal<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InLocal")
    }
}
