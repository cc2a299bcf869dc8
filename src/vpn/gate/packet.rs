//! A packet out of the tunnel, checked before anybody believes a field of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// TCP's number in the IP header.
pub const TCP: u8 = 6;
/// UDP's.
pub const UDP: u8 = 17;
/// ICMP's, under IPv4.
pub const ICMPV4: u8 = 1;
/// ICMP's, under IPv6.
pub const ICMPV6: u8 = 58;
const FRAGMENT_HEADER: u8 = 44;

/// A packet with one whole header and its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Who it says it is from.
    pub source: IpAddr,
    /// Where it wants to go.
    pub destination: IpAddr,
    /// What the payload is.
    pub protocol: u8,
    /// What follows the IP header.
    pub payload: &'a [u8],
    /// Header and payload, without padding.
    pub whole: &'a [u8],
    /// Whether it is a piece of a larger one.
    pub fragment: Fragment,
}

/// Whether a packet is a piece of a larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// It is not.
    Whole,
    /// The piece with the header of the payload; the number is the same in all pieces.
    First(u32),
    /// A piece without one.
    Later(u32),
}

/// What an ICMP error quotes of the packet that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Who sent that packet.
    pub source: IpAddr,
    /// Who did not get it.
    pub destination: IpAddr,
    /// What was in it.
    pub protocol: u8,
    /// The first four bytes of that as two ports.
    pub ports: (u16, u16),
}

/// Why a packet is not looked at any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Neither IPv4 nor IPv6, or the header is cut off.
    Header,
    /// The length field does not fit what came.
    Length,
    /// A piece of a packet: nothing here puts them together.
    Fragment,
    /// IPv4 options: nobody needs them, and source routes are among them.
    Options,
}

impl<'a> Packet<'a> {
    /// Reads one whole IP packet; bytes after the length that it gives are padding.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let packet = Self::parse_piece(bytes)?;
        if packet.fragment == Fragment::Whole { Ok(packet) } else { Err(Malformed::Fragment) }
    }

    /// The same for packets that may be pieces.
    pub fn parse_piece(bytes: &'a [u8]) -> Result<Self, Malformed> {
        match bytes.first().map(|first| first >> 4) {
            Some(4) => Self::parse_v4(bytes),
            Some(6) => Self::parse_v6(bytes),
            _ => Err(Malformed::Header),
        }
    }

    fn parse_v4(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let header: &[u8; 20] = bytes.first_chunk().ok_or(Malformed::Header)?;
        match header[0] & 0x0f {
            0..5 => return Err(Malformed::Header),
            5 => {}
            _ => return Err(Malformed::Options),
        }
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let whole = bytes.get(..total).ok_or(Malformed::Length)?;
        let payload = whole.get(20..).ok_or(Malformed::Length)?;
        // RFC 791 §3.1: more-fragments flag, or an offset.
        let place = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
        let id = u16::from_be_bytes([header[4], header[5]]).into();
        let fragment = Fragment::at(place & 0x1fff, place != 0, id, header[9])?;
        let source = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
        let destination = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
        Ok(Self {
            source: source.into(),
            destination: destination.into(),
            protocol: header[9],
            payload,
            whole,
            fragment,
        })
    }

    fn parse_v6(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let header: &[u8; 40] = bytes.first_chunk().ok_or(Malformed::Header)?;
        let total = 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
        let whole = bytes.get(..total).ok_or(Malformed::Length)?;
        let payload = whole.get(40..).ok_or(Malformed::Length)?;
        let (mut protocol, mut payload, mut fragment) = (header[6], payload, Fragment::Whole);
        if protocol == FRAGMENT_HEADER {
            // RFC 8200 §4.5; other extension headers, before or after, are nothing that a flow is known by.
            let (extension, rest) = payload.split_first_chunk::<8>().ok_or(Malformed::Length)?;
            let place = u16::from_be_bytes([extension[2], extension[3]]);
            let id = u32::from_be_bytes([extension[4], extension[5], extension[6], extension[7]]);
            (protocol, payload) = (extension[0], rest);
            fragment = Fragment::at(place >> 3, true, id, protocol)?;
        }
        let address = |from: usize| -> Ipv6Addr {
            let octets: [u8; 16] = header[from..from + 16].try_into().expect("both addresses are in the header");
            octets.into()
        };
        Ok(Self { source: address(8).into(), destination: address(24).into(), protocol, payload, whole, fragment })
    }

    /// Returns source and destination port of TCP and UDP.
    pub fn ports(&self) -> Option<(u16, u16)> {
        let least = match self.protocol {
            TCP => 20,
            UDP => 8,
            _ => return None,
        };
        if self.payload.len() < least || matches!(self.fragment, Fragment::Later(_)) {
            return None;
        }
        let ports: &[u8; 4] = self.payload.first_chunk()?;
        Some((u16::from_be_bytes([ports[0], ports[1]]), u16::from_be_bytes([ports[2], ports[3]])))
    }

    /// Says whether this is TCP that begins a connection.
    pub fn is_syn(&self) -> bool {
        const SYN: u8 = 0x02;
        const RST_ACK: u8 = 0x14;
        self.protocol == TCP && self.payload.get(13).is_some_and(|flags| flags & SYN != 0 && flags & RST_ACK == 0)
    }

    /// Returns what an ICMP error is about; `None` if this is none.
    pub fn quoted(&self) -> Option<Quoted> {
        let kind = *self.payload.first()?;
        let is_error = match self.protocol {
            // RFC 792: unreachable, time exceeded, parameter problem; source quench and redirects are nobody's to send.
            ICMPV4 => matches!(kind, 3 | 11 | 12),
            // RFC 4443 §2.1: unreachable, too big, time exceeded, parameter problem.
            ICMPV6 => matches!(kind, 1..=4),
            _ => false,
        };
        let quote = self.payload.get(8..).filter(|_| is_error && self.fragment == Fragment::Whole)?;
        let (source, destination, protocol, rest): (IpAddr, IpAddr, u8, &[u8]) = match self.source {
            IpAddr::V4(_) => {
                let header: &[u8; 20] = quote.first_chunk()?;
                let rest = quote.get(usize::from(header[0] & 0x0f) * 4..).filter(|_| header[0] >> 4 == 4)?;
                let [source, destination] = [12, 16].map(|at| {
                    let octets: [u8; 4] = header[at..at + 4].try_into().expect("both addresses are in the header");
                    octets.into()
                });
                (source, destination, header[9], rest)
            }
            IpAddr::V6(_) => {
                let header: &[u8; 40] = quote.first_chunk()?;
                let rest = quote.get(40..).filter(|_| header[0] >> 4 == 6)?;
                let [source, destination] = [8, 24].map(|at| {
                    let octets: [u8; 16] = header[at..at + 16].try_into().expect("both addresses are in the header");
                    octets.into()
                });
                (source, destination, header[6], rest)
            }
        };
        let ports: &[u8; 8] = rest.first_chunk()?;
        let (mut first, mut second) =
            (u16::from_be_bytes([ports[0], ports[1]]), u16::from_be_bytes([ports[2], ports[3]]));
        if matches!(protocol, ICMPV4 | ICMPV6) {
            (first, second) = (u16::from_be_bytes([ports[4], ports[5]]), 0);
        }
        Some(Quoted { source, destination, protocol, ports: (first, second) })
    }
}

impl Fragment {
    /// `offset` counts in units of eight bytes.
    fn at(offset: u16, is_piece: bool, id: u32, protocol: u8) -> Result<Self, Malformed> {
        match offset {
            0 if !is_piece => Ok(Self::Whole),
            0 => Ok(Self::First(id)),
            // RFC 3128: a piece that would write over the header that was judged.
            1..8 if protocol == TCP => Err(Malformed::Fragment),
            _ => Ok(Self::Later(id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v4() -> Vec<u8> {
        let mut bytes = vec![0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, UDP, 0, 0, 10, 77, 0, 2, 10, 77, 0, 1];
        bytes.extend([0x30, 0x39, 0, 53, 0, 8, 0, 0]);
        bytes
    }

    #[test]
    fn padding_is_cut_and_ports_are_read() {
        let mut bytes = v4();
        bytes.extend([0; 4]);

        let packet = Packet::parse(&bytes).unwrap();

        assert_eq!(packet.whole.len(), 28);
        assert_eq!(packet.ports(), Some((12345, 53)));
    }

    #[test]
    fn fragments_options_and_wrong_lengths_are_told_apart() {
        let changed = |at: usize, value: u8| {
            let mut bytes = v4();
            bytes[at] = value;
            Packet::parse(&bytes).err()
        };

        assert_eq!(changed(6, 0x20), Some(Malformed::Fragment));
        assert_eq!(changed(7, 0x01), Some(Malformed::Fragment));
        assert_eq!(changed(0, 0x46), Some(Malformed::Options));
        assert_eq!(changed(0, 0x44), Some(Malformed::Header));
        assert_eq!(changed(0, 0x55), Some(Malformed::Header));
        assert_eq!(changed(3, 19), Some(Malformed::Length));
        assert_eq!(changed(3, 29), Some(Malformed::Length));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), first in 0x40_u8..0x70) {
            let mut bytes = bytes;
            if let Some(byte) = bytes.first_mut() {
                *byte = first;
            }

            if let Ok(packet) = Packet::parse(&bytes) {
                prop_assert!(packet.whole.len() <= bytes.len());
                let _ = (packet.ports(), packet.is_syn());
            }
        }
    }
}
