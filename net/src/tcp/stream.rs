//! A TCP connection.

use std::io;
use std::net::SocketAddr;

use trio_io::{AsyncResource, HalfCloseableStream, Lease, Outgoing, ReceiveStream, SendStream};
use trio_runtime::lowlevel::{
    self, Connect, Descriptor, Family, Interest, Ready, Send, SendData, socket,
};
use trio_runtime::{ClosedResource, Result, checkpoint};

use super::{Lane, Socket};

/// A TCP connection.
///
/// Methods take `&self`, so that one task can send while another receives; two in the same direction
/// are a mistake that [`BusyResource`](trio_runtime::BusyResource) reports. Dropping the stream
/// closes it.
///
/// `TCP_NODELAY` is on.
#[derive(Debug)]
pub struct TcpStream {
    socket: Socket,
    receiving: Lane,
    sending: Lane,
    /// Whether the end of file has been sent.
    ended: std::cell::Cell<bool>,
}

/// Connects to `address`.
///
/// # Cancellation
///
/// A checkpoint. The socket is closed; whether the other side saw a connection is unknown.
///
/// # Errors
///
/// What the system said.
pub async fn connect_tcp(address: SocketAddr) -> Result<TcpStream> {
    let descriptor = socket::stream(Family::of(&address))?;
    let connect = Connect::new(descriptor, address);
    let connected = lowlevel::submit(connect).await?.into_connected()?;
    Ok(TcpStream::from_descriptor(connected))
}

impl TcpStream {
    /// A stream over a connected socket, which it takes over.
    pub fn from_descriptor(descriptor: Descriptor) -> Self {
        socket::prepare_stream(&descriptor);
        Self {
            socket: Socket::new(descriptor),
            receiving: Lane::default(),
            sending: Lane::default(),
            ended: std::cell::Cell::new(false),
        }
    }

    /// The address of this side.
    ///
    /// # Errors
    ///
    /// `ClosedResource`, or what the system said.
    pub fn local_address(&self) -> Result<SocketAddr> {
        Ok(socket::local_address(&*self.socket.get()?)?)
    }

    /// The address of the other side.
    ///
    /// # Errors
    ///
    /// `ClosedResource`, or what the system said.
    pub fn peer_address(&self) -> Result<SocketAddr> {
        Ok(socket::peer_address(&*self.socket.get()?)?)
    }

    /// Receives at least one byte into memory of the runtime's, without a copy; `None` is the end of
    /// file. A stream that waits here holds no buffer.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. `Cancelled` means that nothing has been received: the bytes are there for the
    /// next receive, also if the future was dropped instead.
    ///
    /// # Errors
    ///
    /// `BusyResource` if another task is receiving, `ClosedResource` if this side has closed it,
    /// `BrokenResource` if the other side has broken it.
    pub async fn receive(&self) -> Result<Option<Lease>> {
        let _claim = self.receiving.claim()?;
        // The borrow ends before the wait: the stream may be closed meanwhile.
        let receive = lowlevel::receive(&*self.socket.get()?, &self.receiving.gate);
        let received = receive.await?;
        let lease = received.map_err(|error| self.socket.error(error))?;
        Ok(Some(lease).filter(|lease| !lease.is_empty()))
    }

    /// Receives at least one byte and at most what `buffer` holds; zero is the end of file.
    ///
    /// # Cancellation
    ///
    /// As for [`receive`](Self::receive).
    ///
    /// # Errors
    ///
    /// As for [`receive`](Self::receive); an [`io::Error`] of the kind `InvalidInput` if `buffer` is
    /// empty.
    pub async fn receive_some(&self, buffer: &mut [u8]) -> Result<usize> {
        if buffer.is_empty() {
            let text = "a buffer to receive into needs room for at least one byte";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text).into());
        }
        let _claim = self.receiving.claim()?;
        let gate = &self.receiving.gate;
        let receive = lowlevel::receive_into(&*self.socket.get()?, gate, buffer);
        let received = receive.await?;
        received.map_err(|error| self.socket.error(error))
    }

    /// Sends all of `data`.
    ///
    /// A slice is lent for the time of the call and never to the kernel across a wait; a
    /// [`Lease`] or a vector is given away, and sent from where it lies.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. `Cancelled` means that an unknown part has been sent.
    ///
    /// # Errors
    ///
    /// `BusyResource` if another task is sending, `ClosedResource` if this side has closed it or has
    /// sent the end of file, `BrokenResource` if the other side is gone.
    pub async fn send_all<'a>(&self, data: impl Into<Outgoing<'a>>) -> Result<()> {
        let data = data.into();
        let _claim = self.sending.claim()?;
        lowlevel::enter_operation().await?;
        let mut sent = 0;
        loop {
            let descriptor = self.open_for_sending()?;
            let rest = &data.bytes()[sent..];
            if rest.is_empty() {
                return Ok(());
            }
            match socket::try_send(&descriptor, rest) {
                Ok(count) => {
                    sent += count;
                    // A future that is forgotten must not keep the descriptor open.
                    drop(descriptor);
                    if sent < data.bytes().len() {
                        lowlevel::enter_operation().await?;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match data {
                    Outgoing::Owned(data) => {
                        return self.send_owned(descriptor, data, sent).await;
                    }
                    _ => self.wait_writable(descriptor).await?,
                },
                Err(error) => return Err(self.socket.error(error)),
            }
        }
    }

    /// Sends the rest of memory that was given away, by operations that own it.
    async fn send_owned(&self, to: Descriptor, data: SendData, sent: usize) -> Result<()> {
        let mut send = Send::new(to, data);
        send.start = sent;
        loop {
            let finished = lowlevel::submit_in(send, &self.sending.gate).await?;
            let (operation, result) = finished.into_sent();
            send = operation;
            send.start += result.map_err(|error| self.socket.error(error))? as usize;
            if send.start == send.data.len() {
                return Ok(());
            }
            if self.socket.is_closed() {
                return Err(ClosedResource::new().into());
            }
        }
    }

    async fn wait_writable(&self, descriptor: Descriptor) -> Result<()> {
        let ready = Ready::new(descriptor, Interest::Writable);
        let finished = lowlevel::submit_in(ready, &self.sending.gate).await?;
        finished
            .into_ready()
            .map_err(|error| self.socket.error(error))
    }

    fn open_for_sending(&self) -> Result<Descriptor> {
        if self.ended.get() {
            return Err(ClosedResource::new().into());
        }
        self.socket.open()
    }

    /// Waits until [`send_all`](Self::send_all) might not block.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. Nothing has happened.
    ///
    /// # Errors
    ///
    /// As for [`send_all`](Self::send_all).
    pub async fn wait_send_all_might_not_block(&self) -> Result<()> {
        let _claim = self.sending.claim()?;
        lowlevel::enter_operation().await?;
        let descriptor = self.open_for_sending()?;
        self.wait_writable(descriptor).await
    }

    /// Sends the end of file; receiving goes on. Does nothing the second time.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. `Cancelled` means that the end of file has not been sent.
    ///
    /// # Errors
    ///
    /// `BusyResource` if another task is sending, `ClosedResource`, `BrokenResource`.
    pub async fn send_eof(&self) -> Result<()> {
        let _claim = self.sending.claim()?;
        lowlevel::enter_operation().await?;
        let descriptor = self.socket.open()?;
        if !self.ended.get() {
            socket::shutdown_send(&descriptor).map_err(|error| self.socket.error(error))?;
            self.ended.set(true);
        }
        Ok(())
    }

    /// Closes the connection. Tasks that wait in it get `ClosedResource`.
    ///
    /// # Cancellation
    ///
    /// A checkpoint; closed in any case.
    ///
    /// # Errors
    ///
    /// `Cancelled` only.
    pub async fn aclose(&self) -> Result<()> {
        self.close();
        checkpoint().await
    }

    /// Closes the connection at once.
    pub fn close(&self) {
        self.socket.close();
        self.receiving.gate.close();
        self.sending.gate.close();
    }

    /// Makes the coming close an abort: the other side sees a reset.
    ///
    /// # Errors
    ///
    /// `ClosedResource`, or what the system said.
    pub fn reset_on_close(&self) -> Result<()> {
        Ok(socket::reset_on_close(&*self.socket.get()?)?)
    }
}

// Through a reference as well, so that two tasks can share a stream that generic code splits.
macro_rules! implement {
    ($($stream:ty),*) => {$(
        impl AsyncResource for $stream {
            async fn aclose(&mut self) -> Result<()> {
                TcpStream::aclose(self).await
            }
        }

        impl SendStream for $stream {
            async fn send_all<'a>(&mut self, data: impl Into<Outgoing<'a>>) -> Result<()> {
                TcpStream::send_all(self, data).await
            }

            async fn wait_send_all_might_not_block(&mut self) -> Result<()> {
                TcpStream::wait_send_all_might_not_block(self).await
            }
        }

        impl ReceiveStream for $stream {
            async fn receive_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
                TcpStream::receive_some(self, buffer).await
            }

            async fn receive(&mut self) -> Result<Option<Lease>> {
                TcpStream::receive(self).await
            }
        }

        impl HalfCloseableStream for $stream {
            async fn send_eof(&mut self) -> Result<()> {
                TcpStream::send_eof(self).await
            }
        }
    )*};
}

implement!(TcpStream, &TcpStream);
