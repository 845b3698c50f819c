//! A server over io_uring: multishot accept and receive into a ring of provided buffers, direct
//! descriptors, a registered ring, and one call a turn that submits and waits.
//!
//! A reply is sent from the buffer that the kernel received into, which goes back to the ring when
//! the send has ended. A connection that is sending holds what arrives meanwhile in a queue, so that
//! replies keep their order.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, Fd, Fixed};
use io_uring::{IoUring, cqueue, opcode, squeue};
use kit::{BUFFER, Connection, Next, Service};

/// Serves for ever.
pub(crate) fn serve(listener: &TcpListener, service: Service) -> io::Result<()> {
    let mut server = Server::new(listener, service)?;
    server.push(accept(listener));
    loop {
        match server.ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        loop {
            let entry = server.ring.completion().next();
            let Some(entry) = entry else { break };
            server.completed(listener, &entry)?;
        }
        server.buffers.publish();
        server.rearm();
    }
}

struct Server {
    ring: IoUring,
    buffers: Buffers,
    service: Service,
    /// By the slot of the direct descriptor.
    peers: Vec<Option<Peer>>,
    /// Connections that found no buffer; they receive again when one is back.
    starved: Vec<u32>,
}

struct Peer {
    connection: Connection,
    sending: Option<Chunk>,
    waiting: VecDeque<Chunk>,
    receiving: bool,
    ended: bool,
}

/// A part of a buffer that is to be sent.
#[derive(Clone, Copy)]
struct Chunk {
    buffer: u16,
    start: u32,
    end: u32,
}

impl Server {
    fn new(listener: &TcpListener, service: Service) -> io::Result<Self> {
        // The listener is asked through the ring only, which waits for it.
        listener.set_nonblocking(false)?;
        let ring = IoUring::builder()
            .setup_clamp()
            .setup_cqsize(ENTRIES * 8)
            .setup_submit_all()
            .setup_coop_taskrun()
            .setup_defer_taskrun()
            .setup_single_issuer()
            .setup_no_sqarray()
            .build(ENTRIES)?;
        ring.submitter().register_files_sparse(CONNECTIONS)?;
        let buffers = Buffers::new();
        // SAFETY: the address is that of `BUFFERS` entries on a page of their own, which live for as
        // long as this process, as the buffers that they name do.
        unsafe {
            ring.submitter()
                .register_buf_ring_with_flags(buffers.address(), BUFFERS, GROUP, 0)?;
        }
        Ok(Self {
            ring,
            buffers,
            service,
            peers: Vec::new(),
            starved: Vec::new(),
        })
    }

    fn push(&mut self, entry: squeue::Entry) {
        loop {
            // SAFETY: entries name descriptors and the process-long memory of `Buffers` only, which
            // is not touched between the submission of a send and its completion.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            self.ring.submit().expect("the kernel takes submissions");
        }
    }

    fn completed(&mut self, listener: &TcpListener, entry: &cqueue::Entry) -> io::Result<()> {
        let data = entry.user_data();
        let slot = u32::try_from(data & u64::from(u32::MAX)).expect("masked");
        match data >> 32 {
            ACCEPT => {
                if !cqueue::more(entry.flags()) {
                    self.push(accept(listener));
                }
                if entry.result() < 0 {
                    return Err(io::Error::from_raw_os_error(-entry.result()));
                }
                self.accepted(entry.result().unsigned_abs());
            }
            RECEIVE => self.received(slot, entry),
            SEND => self.sent(slot, entry.result()),
            _ => {}
        }
        Ok(())
    }

    fn accepted(&mut self, slot: u32) {
        let index = slot as usize;
        if self.peers.len() <= index {
            self.peers.resize_with(index + 1, || None);
        }
        self.peers[index] = Some(Peer {
            connection: self.service.accept(),
            sending: None,
            waiting: VecDeque::new(),
            receiving: true,
            ended: false,
        });
        self.push(receive(slot));
    }

    fn received(&mut self, slot: u32, entry: &cqueue::Entry) {
        let Some(peer) = &mut self.peers[slot as usize] else {
            return;
        };
        peer.receiving = cqueue::more(entry.flags());
        match entry.result() {
            result if result > 0 => {
                let buffer = cqueue::buffer_select(entry.flags()).expect("a buffer was chosen");
                let chunk = Chunk {
                    buffer,
                    start: 0,
                    end: result.unsigned_abs(),
                };
                let receiving = peer.receiving;
                if peer.connection.received(chunk.end as usize) == Next::Take {
                    self.buffers.give_back(buffer);
                } else if peer.sending.is_some() {
                    peer.waiting.push_back(chunk);
                } else {
                    peer.sending = Some(chunk);
                    let send = self.buffers.send(slot, chunk);
                    self.push(send);
                }
                if !receiving {
                    self.receive_again(slot);
                }
            }
            result if result == -NO_BUFFER => self.starved.push(slot),
            _ => {
                peer.ended = true;
                self.close_if_idle(slot);
            }
        }
    }

    fn sent(&mut self, slot: u32, result: i32) {
        let Some(peer) = &mut self.peers[slot as usize] else {
            return;
        };
        let mut chunk = peer.sending.take().expect("one send is in flight");
        if result > 0 {
            chunk.start += result.unsigned_abs();
        } else {
            peer.ended = true;
            chunk.start = chunk.end;
        }
        let next = if chunk.start < chunk.end {
            Some(chunk)
        } else {
            self.buffers.give_back(chunk.buffer);
            peer.waiting.pop_front()
        };
        if let Some(chunk) = next {
            peer.sending = Some(chunk);
            let send = self.buffers.send(slot, chunk);
            self.push(send);
        } else if peer.connection.is_over() || peer.ended {
            peer.ended = true;
            self.close_if_idle(slot);
        }
    }

    fn receive_again(&mut self, slot: u32) {
        if let Some(peer) = &mut self.peers[slot as usize] {
            peer.receiving = true;
            self.push(receive(slot));
        }
    }

    /// Arms again what found no buffer, now that some are back.
    fn rearm(&mut self) {
        for slot in std::mem::take(&mut self.starved) {
            self.receive_again(slot);
        }
    }

    /// Closes a connection that has ended and is not sending; the receive that may be in flight ends
    /// with it.
    fn close_if_idle(&mut self, slot: u32) {
        let Some(peer) = &mut self.peers[slot as usize] else {
            return;
        };
        if !peer.ended || peer.sending.is_some() {
            return;
        }
        if peer.receiving {
            // Ends the receive, whose last completion comes back here.
            self.push(
                opcode::Shutdown::new(Fixed(slot), BOTH_DIRECTIONS)
                    .build()
                    .user_data(OTHER << 32),
            );
            return;
        }
        for chunk in std::mem::take(&mut peer.waiting) {
            self.buffers.give_back(chunk.buffer);
        }
        self.peers[slot as usize] = None;
        self.push(
            opcode::Close::new(Fixed(slot))
                .build()
                .user_data(OTHER << 32),
        );
    }
}

fn accept(listener: &TcpListener) -> squeue::Entry {
    opcode::AcceptMulti::new(Fd(listener.as_raw_fd()))
        .allocate_file_index(true)
        .build()
        .user_data(ACCEPT << 32)
}

fn receive(slot: u32) -> squeue::Entry {
    opcode::RecvMulti::new(Fixed(slot), GROUP)
        .build()
        .user_data(RECEIVE << 32 | u64::from(slot))
}

/// The buffers that the kernel receives into, and the ring by which it is given them.
struct Buffers {
    memory: &'static mut [u8],
    entries: *mut BufRingEntry,
    tail: u16,
}

impl Buffers {
    fn new() -> Self {
        let layout = std::alloc::Layout::from_size_align(usize::from(BUFFERS) * 16, 4096);
        let layout = layout.expect("a power of two");
        // SAFETY: the layout has a size other than zero.
        let entries = unsafe { std::alloc::alloc_zeroed(layout) };
        assert!(!entries.is_null(), "there is memory");
        let mut buffers = Self {
            memory: Box::leak(vec![0; usize::from(BUFFERS) * BUFFER].into_boxed_slice()),
            entries: entries.cast(),
            tail: 0,
        };
        for buffer in 0..BUFFERS {
            buffers.give_back(buffer);
        }
        buffers.publish();
        buffers
    }

    fn address(&self) -> u64 {
        self.entries as u64
    }

    fn start(&self, buffer: u16) -> *const u8 {
        self.memory[usize::from(buffer) * BUFFER..].as_ptr()
    }

    fn send(&self, slot: u32, chunk: Chunk) -> squeue::Entry {
        let from = self.start(chunk.buffer).wrapping_add(chunk.start as usize);
        opcode::Send::new(Fixed(slot), from, chunk.end - chunk.start)
            .flags(NO_SIGNAL)
            .build()
            .user_data(SEND << 32 | u64::from(slot))
    }

    /// Writes the entry; the kernel sees it after `publish`.
    fn give_back(&mut self, buffer: u16) {
        let address = self.start(buffer) as u64;
        // SAFETY: the index is below `BUFFERS`, which is how many entries there are.
        let entry = unsafe { &mut *self.entries.add(usize::from(self.tail & (BUFFERS - 1))) };
        entry.set_addr(address);
        entry.set_len(BUFFER as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&mut self) {
        // SAFETY: the entries are those of a ring.
        let tail = unsafe { BufRingEntry::tail(self.entries) };
        // SAFETY: the tail is aligned, and the kernel only reads it, atomically.
        let tail = unsafe { &*tail.cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }
}

const ENTRIES: u32 = 512;
const BUFFERS: u16 = 1024;
const GROUP: u16 = 0;
/// Direct descriptors.
const CONNECTIONS: u32 = 16 * 1024;

const ACCEPT: u64 = 1;
const RECEIVE: u64 = 2;
const SEND: u64 = 3;
const OTHER: u64 = 4;

const NO_BUFFER: i32 = 105;
const NO_SIGNAL: i32 = 0x4000;
const BOTH_DIRECTIONS: i32 = 2;
