//! Servers: for each listener a task that accepts, and for each connection a task.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use trio_io::Listener;
use trio_runtime::{
    Error, Nursery, Result, TaskStatus, open_nursery, sleep, until_draining, wait_draining,
};

use crate::Bind;
use crate::tcp::{TcpStream, open_tcp_listeners};

/// How long a server that has run out of descriptors or memory waits before it accepts again.
const OVERLOAD_PAUSE: Duration = Duration::from_millis(100);

/// Serves TCP connections on `on` until cancelled, with a task that runs `handler` for each.
///
/// The handler owns its stream, which is closed when the handler ends unless it was moved
/// elsewhere.
///
/// An error in a handler ends the server, as an error in a child ends its nursery, and a client
/// that resets its connection causes one ([`BrokenResource`](trio_runtime::BrokenResource)) in its
/// handler. A server that should survive this decides what to do with errors in
/// [`Server::on_error`].
///
/// # Cancellation
///
/// Stops accepting and cancels every handler. [Draining](trio_runtime::CancelScope::drain) an
/// enclosing scope shuts the server down gracefully: it stops accepting, and returns `Ok` when every
/// handler has ended. So a handler should wait for its next request inside [`until_draining`].
///
/// # Errors
///
/// Why it could not listen; or a group with what went wrong in a handler or while accepting.
///
/// # Examples
///
/// ```no_run
/// # mod trio { pub use trio_runtime::*; pub mod net { pub use trio_net::*; } pub mod testing { pub use trio_net::testing::*; } }
/// # trio::run(async {
/// use trio::net::{TcpStream, serve_tcp};
///
/// let echo = |stream: TcpStream| async move {
///     while let Some(data) = stream.receive().await? {
///         stream.send_all(data).await?;
///     }
///     Ok(())
/// };
/// serve_tcp(echo, 8000).await
/// # }).unwrap();
/// ```
///
/// On every core: each worker has a listener of its own on the same port, and the kernel
/// distributes the connections among them.
///
/// ```no_run
/// # mod trio { pub use trio_runtime::*; pub mod net { pub use trio_net::*; } pub mod testing { pub use trio_net::testing::*; } }
/// use trio::net::{Bind, TcpListener, TcpStream, serve_listeners};
/// use trio::Workers;
///
/// let echo = |stream: TcpStream| async move {
///     while let Some(data) = stream.receive().await? {
///         stream.send_all(data).await?;
///     }
///     Ok(())
/// };
/// Workers::per_core().pinned(true).run(async |_| {
///     let listeners = TcpListener::open_all(Bind::Everywhere(8000), 65_535, true)?;
///     serve_listeners(echo, listeners).await
/// })?;
/// # Ok::<(), trio::Error>(())
/// ```
pub async fn serve_tcp<'env, H, F>(handler: H, on: impl Into<Bind>) -> Result<()>
where
    H: Fn(TcpStream) -> F + 'env,
    F: Future<Output = Result<()>> + 'env,
{
    let listeners = open_tcp_listeners(on).await?;
    serve_listeners(handler, listeners).await
}

/// Serves the connections of `listeners` until cancelled, with a task that runs `handler` for each;
/// see [`serve_tcp`].
///
/// # Cancellation
///
/// As for [`serve_tcp`].
///
/// # Errors
///
/// As for [`Server::serve`].
pub async fn serve_listeners<'env, L, H, F>(handler: H, listeners: Vec<L>) -> Result<()>
where
    L: Listener + 'env,
    L::Stream: 'env,
    H: Fn(L::Stream) -> F + 'env,
    F: Future<Output = Result<()>> + 'env,
{
    Server::new(handler).serve(listeners).await
}

/// A server with more options than [`serve_tcp`] has.
///
/// # Examples
///
/// A server in which a failed connection does not affect the others:
///
/// ```no_run
/// # mod trio { pub use trio_runtime::*; pub mod net { pub use trio_net::*; } pub mod testing { pub use trio_net::testing::*; } }
/// # trio::run(async {
/// use trio::net::{Server, TcpStream, open_tcp_listeners};
///
/// let listeners = open_tcp_listeners(8000).await?;
/// Server::new(|stream: TcpStream| async move { stream.send_all(b"hello\n").await })
///     .on_error(|error| {
///         eprintln!("a connection failed: {error}");
///         Ok(())
///     })
///     .serve(listeners)
///     .await
/// # }).unwrap();
/// ```
#[must_use = "a server does nothing until `serve`"]
pub struct Server<'env, H> {
    handler: H,
    on_error: ErrorSink<'env>,
    on_overload: OverloadSink<'env>,
}

type ErrorSink<'env> = Rc<dyn Fn(Error) -> Result<()> + 'env>;
type OverloadSink<'env> = Rc<dyn Fn(&Error) + 'env>;

impl<'env, H> Server<'env, H> {
    /// A server that runs `handler` in a task for each connection.
    pub fn new(handler: H) -> Self {
        let overload = |error: &Error| {
            eprintln!("trio: cannot accept ({error}); trying again in {OVERLOAD_PAUSE:?}");
        };
        Self {
            handler,
            on_error: Rc::new(Err),
            on_overload: Rc::new(overload),
        }
    }

    /// Handles the errors of handlers. If `sink` returns `Ok`, only that connection ends; if it
    /// returns an error, the server ends with it. Cancellations are not passed to it. Without this
    /// every error ends the server.
    pub fn on_error(mut self, sink: impl Fn(Error) -> Result<()> + 'env) -> Self {
        self.on_error = Rc::new(sink);
        self
    }

    /// Calls `sink` each time a connection could not be accepted for lack of descriptors or memory;
    /// the server waits for a tenth of a second and tries again. Without this a line is printed to
    /// standard error.
    pub fn on_overload(mut self, sink: impl Fn(&Error) + 'env) -> Self {
        self.on_overload = Rc::new(sink);
        self
    }

    /// Serves the connections of `listeners` until cancelled.
    ///
    /// # Cancellation
    ///
    /// Stops accepting and cancels every handler; draining is as for [`serve_tcp`].
    ///
    /// # Errors
    ///
    /// A group with what went wrong in a handler or while accepting; or with an [`io::Error`] of the kind
    /// `InvalidInput` if `listeners` is empty: it would wait for ever.
    pub fn serve<L, F>(self, listeners: Vec<L>) -> impl Future<Output = Result<()>>
    where
        L: Listener + 'env,
        L::Stream: 'env,
        H: Fn(L::Stream) -> F + 'env,
        F: Future<Output = Result<()>> + 'env,
    {
        self.serve_started(listeners, TaskStatus::ignored())
    }

    /// Like [`serve`](Self::serve), for use with [`Nursery::start`]: reports to `status` once it
    /// accepts.
    ///
    /// # Cancellation
    ///
    /// As for [`serve`](Self::serve).
    ///
    /// # Errors
    ///
    /// As for [`serve`](Self::serve).
    pub fn serve_started<L, F>(
        self,
        listeners: Vec<L>,
        status: TaskStatus<()>,
    ) -> impl Future<Output = Result<()>>
    where
        L: Listener + 'env,
        L::Stream: 'env,
        H: Fn(L::Stream) -> F + 'env,
        F: Future<Output = Result<()>> + 'env,
    {
        let server = Rc::new(self);
        // Returns the future of the nursery itself: a future around it would be on the way of each
        // message.
        open_nursery(async move |nursery: &Nursery<'_, 'env>| {
            require_one(&listeners)?;
            for listener in listeners {
                let server = server.clone();
                nursery.start_soon_named("accept", async move {
                    server.accept_into(&listener, nursery).await
                });
            }
            status.started(())?;
            wait_draining().await
        })
    }

    /// Serves the connections of `listeners` until cancelled, with the handlers in the caller's
    /// `nursery`: cancelling this call only stops accepting, and the handlers go on.
    ///
    /// # Cancellation
    ///
    /// Stops accepting, with `Ok` if an enclosing scope is drained. Handlers are cancelled with
    /// `nursery`.
    ///
    /// # Errors
    ///
    /// A group with what went wrong while accepting. What goes wrong in a handler goes to `nursery`. An
    /// [`io::Error`] of the kind `InvalidInput` if `listeners` is empty.
    pub async fn serve_in<'scope, L, F>(
        self,
        nursery: &'scope Nursery<'scope, 'env>,
        listeners: Vec<L>,
    ) -> Result<()>
    where
        L: Listener + 'env,
        L::Stream: 'env,
        H: Fn(L::Stream) -> F + 'env,
        F: Future<Output = Result<()>> + 'env,
    {
        require_one(&listeners)?;
        let server = Rc::new(self);
        open_nursery(async move |accepting: &Nursery<'_, '_>| {
            for listener in listeners {
                let server = server.clone();
                accepting.start_soon_named("accept", async move {
                    server.accept_into(&listener, nursery).await
                });
            }
            wait_draining().await
        })
        .await
    }

    /// Accepts until the server is drained, and starts a handler for each connection.
    async fn accept_into<'scope, L, F>(
        &self,
        listener: &L,
        nursery: &'scope Nursery<'scope, 'env>,
    ) -> Result<()>
    where
        L: Listener,
        L::Stream: 'env,
        H: Fn(L::Stream) -> F + 'env,
        F: Future<Output = Result<()>> + 'env,
    {
        loop {
            match until_draining(listener.accept()).await {
                Ok(None) => return Ok(()),
                Ok(Some(stream)) => {
                    let connection = Connection {
                        handler: (self.handler)(stream),
                        on_error: self.on_error.clone(),
                    };
                    nursery.start_soon_named("connection", connection);
                }
                Err(error) if L::is_overloaded(&error) => {
                    (self.on_overload)(&error);
                    sleep(OVERLOAD_PAUSE).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// A server without listeners would wait for ever, and nobody would see why.
fn require_one<L>(listeners: &[L]) -> io::Result<()> {
    if !listeners.is_empty() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        "a server needs at least one listener to serve: open one with `open_tcp_listeners`",
    ))
}

pin_project! {
    /// A handler at work, and where its error goes.
    // An async block would hold the handler twice, as what it captures and as what it awaits: that
    // was two fifths of the memory of an idle connection.
    struct Connection<'env, F> {
        #[pin]
        handler: F,
        on_error: ErrorSink<'env>,
    }
}

impl<F: Future<Output = Result<()>>> Future for Connection<'_, F> {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.project();
        Poll::Ready(match ready!(this.handler.poll(context)) {
            Err(error) if !error.is_cancelled() => (this.on_error)(error),
            result => result,
        })
    }
}

impl<H> fmt::Debug for Server<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Server")
    }
}
