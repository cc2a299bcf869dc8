//! DNS cookies towards clients (RFC 7873, in the form of RFC 9018): who brings one back has its address.

use std::net::IpAddr;

/// Seconds that a cookie is good for (RFC 9018 §4.3).
const LIFETIME: u32 = 3600;

/// Seconds that a cookie may be ahead of the clock.
const AHEAD: u32 = 300;

/// What a client sent in its COOKIE option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cookie {
    /// Its own half.
    pub(crate) client: [u8; 8],
    /// Ours, if it has one of our size.
    pub(crate) server: Option<[u8; 16]>,
}

impl Cookie {
    /// Reads the data of the option; `None` if it has no length that a cookie has (RFC 7873 §5.2.2).
    pub(crate) fn read(data: &[u8]) -> Option<Self> {
        let (client, server) = data.split_first_chunk()?;
        matches!(server.len(), 0 | 8..=32).then_some(Self { client: *client, server: server.try_into().ok() })
    }
}

/// Makes and knows the cookies of this process.
pub(crate) struct Cookies {
    secret: [u8; 16],
}

impl std::fmt::Debug for Cookies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cookies")
    }
}

impl Cookies {
    /// Makes a secret. Without the system's random source there is none that a stranger could not guess as well.
    pub(crate) fn new() -> Self {
        let mut secret = [0; 16];
        getrandom::fill(&mut secret).expect("the kernel has random numbers");
        Self { secret }
    }

    /// Returns both halves for the answer to this client.
    pub(crate) fn both(&self, client: [u8; 8], address: IpAddr, now: u64) -> [u8; 24] {
        let mut both = [0; 24];
        both[..8].copy_from_slice(&client);
        both[8..].copy_from_slice(&self.server(client, address, seconds(now)));
        both
    }

    /// Says whether a client was given this cookie at this address, not too long ago.
    pub(crate) fn is_ours(&self, cookie: &Cookie, address: IpAddr, now: u64) -> bool {
        let Some(server) = &cookie.server else { return false };
        let made = u32::from_be_bytes([server[4], server[5], server[6], server[7]]);
        // RFC 1982: the clock of 32 bits goes round.
        let age = seconds(now).wrapping_sub(made);
        let fresh = age <= LIFETIME || age.wrapping_neg() <= AHEAD;
        // Compared without a word on where they differ.
        let own = self.server(cookie.client, address, made);
        fresh && own.iter().zip(server).fold(0, |differ, (a, b)| differ | a ^ b) == 0
    }

    /// Version 1, three reserved bytes, the time, and SipHash-2-4 over all of it with the client's half and
    /// address (RFC 9018 §4).
    fn server(&self, client: [u8; 8], address: IpAddr, made: u32) -> [u8; 16] {
        let mut server = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        server[4..8].copy_from_slice(&made.to_be_bytes());
        let mut text = [0; 32];
        text[..8].copy_from_slice(&client);
        text[8..16].copy_from_slice(&server[..8]);
        let length = match address.to_canonical() {
            IpAddr::V4(v4) => {
                text[16..20].copy_from_slice(&v4.octets());
                20
            }
            IpAddr::V6(v6) => {
                text[16..32].copy_from_slice(&v6.octets());
                32
            }
        };
        server[8..].copy_from_slice(&siphash24(&self.secret, &text[..length]).to_le_bytes());
        server
    }
}

fn seconds(now: u64) -> u32 {
    (now & u64::from(u32::MAX)) as u32
}

/// SipHash-2-4: the standard library's hashers say of themselves that they may become another function.
fn siphash24(key: &[u8; 16], text: &[u8]) -> u64 {
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    };
    let (k0, k1) = (word(&key[..8]), word(&key[8..]));
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let mut chunks = text.chunks_exact(8);
    for chunk in &mut chunks {
        let m = word(chunk);
        v[3] ^= m;
        rounds(&mut v, 2);
        v[0] ^= m;
    }
    let last = word(chunks.remainder()) | (text.len() as u64) << 56;
    v[3] ^= last;
    rounds(&mut v, 2);
    v[0] ^= last;
    v[2] ^= 0xff;
    rounds(&mut v, 4);
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn rounds(v: &mut [u64; 4], count: usize) {
    for _ in 0..count {
        v[0] = v[0].wrapping_add(v[1]);
        v[2] = v[2].wrapping_add(v[3]);
        v[1] = v[1].rotate_left(13) ^ v[0];
        v[3] = v[3].rotate_left(16) ^ v[2];
        v[0] = v[0].rotate_left(32);
        v[2] = v[2].wrapping_add(v[1]);
        v[0] = v[0].wrapping_add(v[3]);
        v[1] = v[1].rotate_left(17) ^ v[2];
        v[3] = v[3].rotate_left(21) ^ v[0];
        v[2] = v[2].rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        let pairs: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        pairs.try_into().unwrap()
    }

    #[test]
    fn rfc9018_appendix_a_the_cookies_of_the_examples() {
        let v4 = Cookies { secret: bytes("e5e973e5a6b2a43f48e7dc849e37bfcf") };
        let v6 = Cookies { secret: bytes("dd3bdf9344b678b185a6f5cb60fca715") };

        // A.1, and A.4 with the secret that was rolled over.
        let first = v4.server(bytes("2464c4abcf10c957"), "198.51.100.100".parse().unwrap(), 1_559_731_985);
        let last =
            v6.server(bytes("22681ab97d52c298"), "2001:db8:220:1:59de:d0f4:8769:82b8".parse().unwrap(), 1_559_741_817);

        assert_eq!(first, bytes("010000005cf79f111f8130c3eee29480"));
        assert_eq!(last, bytes("010000005cf7c57926556bd0934c72f8"));
    }

    #[test]
    fn a_cookie_belongs_to_one_client_at_one_address_for_an_hour() {
        let cookies = Cookies::new();
        let address: IpAddr = "192.168.1.7".parse().unwrap();
        let both = cookies.both([7; 8], address, 10_000);
        let cookie = Cookie::read(&both).unwrap();

        assert!(cookies.is_ours(&cookie, address, 10_000 + 3600));
        assert!(cookies.is_ours(&cookie, address, 10_000 - 300));
        assert!(!cookies.is_ours(&cookie, address, 10_000 + 3601));
        assert!(!cookies.is_ours(&cookie, address, 10_000 - 301));
        assert!(!cookies.is_ours(&cookie, "192.168.1.8".parse().unwrap(), 10_000));
        assert!(!cookies.is_ours(&Cookie { client: [8; 8], ..cookie }, address, 10_000));
        assert!(!Cookies::new().is_ours(&cookie, address, 10_000));
        assert!(!cookies.is_ours(&Cookie { server: None, ..cookie }, address, 10_000));
    }

    #[test]
    fn only_lengths_of_cookies_are_read() {
        let read = |length: usize| Cookie::read(&vec![1; length]);

        assert!([0, 7, 9, 15, 41].into_iter().all(|length| read(length).is_none()));
        assert!(read(8).is_some_and(|cookie| cookie.server.is_none()));
        assert!(read(24).is_some_and(|cookie| cookie.server.is_some()));
        assert!(read(40).is_some_and(|cookie| cookie.server.is_none()));
    }
}
