//! How a server is reached.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// A server, as everything that is known of it is filed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Contact {
    /// Over UDP, and over TCP where that does not suffice.
    Plain(SocketAddr),
    /// Through an encrypted connection, which is the driver's business: the place in its list.
    Encrypted(u16),
}

impl Contact {
    /// Returns the address, where the core knows it.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Plain(address) => Some(address.ip()),
            Self::Encrypted(_) => None,
        }
    }
}

impl fmt::Display for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(address) => address.fmt(f),
            Self::Encrypted(place) => write!(f, "encrypted server {}", place + 1),
        }
    }
}
