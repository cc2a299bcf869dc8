//! One peer's keys and sessions: a thin wall around boringtun's `Tunn`, so that another core could stand
//! behind it.
//!
//! What is known to be wrong with boringtun 0.7.1, and what is done here about each:
//! - It reads the clock itself. Nothing outside this file sees that: `tick` is called by the gate's time, and
//!   always before a handshake, because inside the library time stands still between ticks and a session
//!   begun on a stale clock would be thrown away at the next one.
//! - Handshakes are counted twice when a device checks them first, the count is one for all sources, and the
//!   cookie leaves out the port: each `Tunn` gets a limiter of its own without a limit, and [`super::handshake`]
//!   does the limiting.
//! - It panics when the output buffer is too small: the buffer here is larger than any datagram.
//! - It does not pad: the inner packet is padded before it is handed over. The receiver cuts at the IP length.
//! - Its byte counters are as wide as a pointer: the gate counts for itself.
//! - A session 18 s old on which the first packet after 15 s of silence is sent asks for a new handshake at
//!   once. One handshake too many; left as it is, since hiding it would leave the library waiting for its answer
//!   and, after 90 s without one, throwing away sound sessions.
//! - The keepalive that answers data is counted from what was last sent, not from what came: it comes early at times, and
//!   never late.
//! - Who gives up a handshake after 90 s throws away sound sessions with it, which the other end goes on using: the gate
//!   greets a peer that speaks in a session it does not know, and a peer that hears nothing asks after 15 s.
//! - Both ends with persistent keepalive compete for who begins: the gate never has one.
//! - The replay window is 1024 packets: the gate keeps the order of what it reads.
//! - It does not wipe keys when dropped (the static ones are; the session keys in `ring` are not).
//! - A new preshared key needs a new `Tunn`: that is what the gate does, for that peer alone.

use std::{sync::Arc, time::Duration};

use boringtun::noise::{Tunn, TunnResult, errors::WireGuardError, rate_limiter::RateLimiter};

use crate::vpn::keys::{PresharedKey, PrivateKey, PublicKey};

/// The largest inner packet that is sent.
pub const MTU: usize = 1420;

/// Any UDP datagram, and what the library adds to a packet.
const BUFFER: usize = 65_536 + 256;

/// Where the library writes; one for all sessions of a thread.
pub struct Buffer(Box<[u8]>);

impl Default for Buffer {
    fn default() -> Self {
        Self(vec![0; BUFFER].into())
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Buffer")
    }
}

/// Why a message was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// An initiation that is not newer than the last one.
    Replay,
    /// A data message that came before.
    Duplicate,
    /// No session has this index.
    NoSession,
    /// It does not decrypt, or makes no sense now.
    Invalid,
    /// It was sealed by the peer, and is no IP packet.
    Packet,
}

impl From<WireGuardError> for Refused {
    fn from(error: WireGuardError) -> Self {
        match error {
            WireGuardError::WrongTai64nTimestamp => Self::Replay,
            WireGuardError::DuplicateCounter | WireGuardError::InvalidCounter => Self::Duplicate,
            WireGuardError::NoCurrentSession | WireGuardError::WrongIndex | WireGuardError::ConnectionExpired => {
                Self::NoSession
            }
            WireGuardError::InvalidPacket => Self::Packet,
            _ => Self::Invalid,
        }
    }
}

/// One peer's sessions.
pub struct Sessions {
    tunn: Tunn,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sessions(…)")
    }
}

impl Sessions {
    /// Makes one without a session; `index` has 24 bits.
    pub fn new(private: &PrivateKey, peer: &PublicKey, preshared: Option<&PresharedKey>, index: u32) -> Self {
        let limiter = Arc::new(RateLimiter::new(&private.public_key().to_x25519(), u64::MAX));
        let preshared = preshared.map(PresharedKey::to_bytes);
        let tunn = Tunn::new(private.to_x25519(), peer.to_x25519(), preshared, None, index, Some(limiter));
        Self { tunn }
    }

    /// Takes a message of this peer. Returns the inner packet if there is one in it, and pushes what is to be
    /// sent back.
    pub fn handle(
        &mut self,
        message: &[u8],
        buffer: &mut Buffer,
        send: &mut Vec<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>, Refused> {
        match self.tunn.decapsulate(None, message, &mut buffer.0) {
            TunnResult::Done => Ok(None),
            TunnResult::Err(error) => Err(error.into()),
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => Ok(Some(packet.into())),
            TunnResult::WriteToNetwork(message) => {
                send.push(message.into());
                // What waited for the session.
                while let TunnResult::WriteToNetwork(message) = self.tunn.decapsulate(None, &[], &mut buffer.0) {
                    send.push(message.into());
                }
                Ok(None)
            }
        }
    }

    /// Seals an inner packet. Without a session it is kept (at most 256 of them) and a handshake begins.
    pub fn seal(&mut self, packet: &[u8], buffer: &mut Buffer) -> Option<Vec<u8>> {
        let mut padded = [0; MTU];
        // Whitepaper §5.4.6: to a multiple of 16, but not beyond the MTU.
        let length = packet.len().next_multiple_of(16).min(MTU);
        let packet = match (padded.get_mut(..packet.len()), length >= packet.len()) {
            (Some(start), true) => {
                start.copy_from_slice(packet);
                &padded[..length]
            }
            _ => packet,
        };
        match self.tunn.encapsulate(packet, &mut buffer.0) {
            TunnResult::WriteToNetwork(message) => Some(message.into()),
            _ => None,
        }
    }

    /// Begins a handshake unless one is under way.
    pub fn initiate(&mut self, buffer: &mut Buffer) -> Option<Vec<u8>> {
        self.begin(buffer, false)
    }

    /// Begins a handshake, also if one is under way.
    pub fn initiate_anew(&mut self, buffer: &mut Buffer) -> Option<Vec<u8>> {
        self.begin(buffer, true)
    }

    fn begin(&mut self, buffer: &mut Buffer, anew: bool) -> Option<Vec<u8>> {
        match self.tunn.format_handshake_initiation(&mut buffer.0, anew) {
            TunnResult::WriteToNetwork(message) => Some(message.into()),
            _ => None,
        }
    }

    /// Lets time pass: retries, new keys, keepalives, and the end of old sessions.
    pub fn tick(&mut self, buffer: &mut Buffer) -> Option<Vec<u8>> {
        match self.tunn.update_timers(&mut buffer.0) {
            TunnResult::WriteToNetwork(message) => Some(message.into()),
            _ => None,
        }
    }

    /// Returns the age of the session that is used for sending.
    pub fn age(&self) -> Option<Duration> {
        self.tunn.time_since_last_handshake()
    }
}
