//! Data to send: borrowed for the call, or given away and sent from where it is.

use trio_runtime::lowlevel::{Lease, SendData};

/// What [`send_all`](crate::SendStream::send_all) takes: a slice, or memory to be sent without a
/// copy.
#[derive(Debug)]
pub enum Outgoing<'a> {
    /// Lent. The kernel never holds it across a wait.
    Borrowed(&'a [u8]),
    /// Given away.
    Owned(SendData),
}

impl Outgoing<'_> {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(data) => data,
        }
    }
}

impl<'a> From<&'a [u8]> for Outgoing<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Borrowed(bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Outgoing<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::Borrowed(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Outgoing<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::Borrowed(bytes)
    }
}

impl<'a> From<&'a str> for Outgoing<'a> {
    fn from(text: &'a str) -> Self {
        Self::Borrowed(text.as_bytes())
    }
}

impl<'a> From<&'a String> for Outgoing<'a> {
    fn from(text: &'a String) -> Self {
        Self::Borrowed(text.as_bytes())
    }
}

impl<'a> From<&'a Lease> for Outgoing<'a> {
    fn from(lease: &'a Lease) -> Self {
        Self::Borrowed(lease)
    }
}

impl From<Lease> for Outgoing<'_> {
    fn from(lease: Lease) -> Self {
        Self::Owned(lease.into())
    }
}

impl From<Vec<u8>> for Outgoing<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Owned(bytes.into())
    }
}

impl From<String> for Outgoing<'_> {
    fn from(text: String) -> Self {
        Self::Owned(text.into_bytes().into())
    }
}
