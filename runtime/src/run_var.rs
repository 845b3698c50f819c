//! Variables that have one value in each run: a pool, a cache, whatever would be a global if there
//! were only one run.
//!
//! The values live in the run, on its thread, and are dropped with it, after all of its tasks and
//! before its driver and its clock. No part of them is shared between threads; the variable itself
//! is a name, usually a `static`, and can be used from anywhere.

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;

use crate::context;
use crate::error::{Result, Usage};
use crate::task::Id;

/// A variable with one value in each run.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// use trio::lowlevel::RunVar;
///
/// static REQUESTS: RunVar<u32> = RunVar::with_default("requests", || 0);
///
/// trio::run(async {
///     let token = REQUESTS.set(7);
///     assert_eq!(REQUESTS.get(), Some(7));
///     REQUESTS.reset(token)?;
///     assert_eq!(REQUESTS.get(), Some(0));
///     Ok::<(), trio::Error>(())
/// })
/// .unwrap();
/// ```
pub struct RunVar<T: 'static> {
    name: &'static str,
    id: Id,
    default: Option<fn() -> T>,
}

/// What [`RunVar::set`] replaced, for [`RunVar::reset`].
pub struct RunVarToken<T: 'static> {
    run: u64,
    id: u64,
    before: Option<Rc<dyn Any>>,
    value: PhantomData<T>,
}

/// The values of one run.
#[derive(Default)]
pub(crate) struct RunVars(RefCell<HashMap<u64, Rc<dyn Any>>>);

impl RunVars {
    /// All values, to be dropped.
    pub(crate) fn take(&self) -> impl Sized {
        self.0.take()
    }
}

impl<T: 'static> RunVar<T> {
    /// A variable that has no value in a run until it is set. The name is for people.
    pub const fn new(name: &'static str) -> Self {
        let id = Id::new();
        let default = None;
        Self { name, id, default }
    }

    /// A variable that has in each run the value that `default` returns, until it is set. `default`
    /// is called once in each run, when the value is first asked for.
    pub const fn with_default(name: &'static str, default: fn() -> T) -> Self {
        Self {
            name,
            id: Id::new(),
            default: Some(default),
        }
    }

    /// The value in this run, if it has one.
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

    /// Calls `look` with the value in this run, if it has one.
    ///
    /// # Panics
    ///
    /// Outside of a run.
    #[track_caller]
    pub fn with<R>(&self, look: impl FnOnce(Option<&T>) -> R) -> R {
        let id = self.id.get();
        let run = context::with(Rc::clone);
        let mut value = run.vars.0.borrow().get(&id).cloned();
        if let (None, Some(default)) = (&value, self.default) {
            // User code: nothing is borrowed while it runs.
            let made: Rc<dyn Any> = Rc::new(default());
            run.vars.0.borrow_mut().insert(id, made.clone());
            value = Some(made);
        }
        look(value.as_ref().and_then(|value| value.downcast_ref()))
    }

    /// Sets the value in this run; returns the token to [reset](Self::reset) it with.
    ///
    /// # Panics
    ///
    /// Outside of a run.
    #[track_caller]
    pub fn set(&self, value: T) -> RunVarToken<T> {
        let id = self.id.get();
        context::with(|run| {
            let before = run.vars.0.borrow_mut().insert(id, Rc::new(value));
            RunVarToken {
                run: run.id,
                id,
                before,
                value: PhantomData,
            }
        })
    }

    /// Sets the value back to what it was before the [`set`](Self::set) that returned `token`, or
    /// to none.
    ///
    /// # Errors
    ///
    /// [`Usage`] if the token is of another variable or of another run.
    ///
    /// # Panics
    ///
    /// Outside of a run.
    #[track_caller]
    pub fn reset(&self, token: RunVarToken<T>) -> Result<()> {
        let run = context::with(Rc::clone);
        if token.run != run.id || token.id != self.id.get() {
            return Err(Usage::new(format!(
                "a token resets the variable and the run that it came from, and `{}` here is not",
                self.name
            ))
            .into());
        }
        let now = match token.before {
            Some(before) => run.vars.0.borrow_mut().insert(token.id, before),
            None => run.vars.0.borrow_mut().remove(&token.id),
        };
        // Dropped when nothing is borrowed: its destructor may use variables.
        drop(now);
        Ok(())
    }
}

impl<T> fmt::Debug for RunVar<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunVar({})", self.name)
    }
}

impl<T> fmt::Debug for RunVarToken<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunVarToken")
    }
}
