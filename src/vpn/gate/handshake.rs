//! What a handshake message must show before the gate spends a multiplication on it.
//!
//! In this order, cheapest first: mac1 (the sender knows our public key), under load mac2 (it also receives
//! what is sent to its address and port), then the bucket of that proven source, then a budget for all.
//! Nothing is remembered and nothing is answered before mac1.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use blake2::{
    Blake2s256, Blake2sMac, Digest,
    digest::{Mac, consts::U16},
};
use chacha20poly1305::{AeadInPlace, KeyInit, XChaCha20Poly1305};

use crate::{
    limit::{Client, Limits, Rate},
    vpn::keys::PublicKey,
};

/// Valid mac1s a second from which on the gate is under load.
const LOAD: Rate = Rate::new(50, 100).expect("not zero");
/// Under load for at least this long: an initiator comes back with its cookie after 5 s at the latest.
const LOAD_LASTS: Duration = Duration::from_secs(10);
/// Cookie replies a second; each costs one small encryption and 64 bytes.
const COOKIES: Rate = Rate::new(2_000, 2_000).expect("not zero");
/// Handshakes of one source that has proven its address. The kernel's module allows as many.
const PER_SOURCE: Rate = Rate::new(20, 20).expect("not zero");
/// Handshakes of everybody together. One costs about 0.15 ms on a fast core, so that this is at most a tenth.
const TOGETHER: Rate = Rate::new(500, 200).expect("not zero");
const SOURCES: usize = 4096;
/// WireGuard whitepaper §5.4.7: the secret changes every two minutes.
const SECRET_LASTS: Duration = Duration::from_secs(120);

const COOKIE_REPLY: [u8; 4] = [3, 0, 0, 0];

/// Whether a peer was proven at the address that a message claims to come from. Strangers may use up their cookies, and
/// not those of somebody whose place they do not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asker {
    /// One was.
    Familiar,
    /// None was.
    Stranger,
}

/// What becomes of a handshake message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may cost a multiplication with the gate's key at this place.
    Admitted(usize),
    /// This is the answer; the message is forgotten.
    Cookie([u8; 64]),
    /// Nothing is answered.
    Refused(Refusal),
}

/// Why a handshake message is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its sender does not know our public key.
    Mac1,
    /// Under load, and too many cookies were sent.
    CookieBudget,
    /// Its source begins too many.
    Source,
    /// All together begin too many.
    Budget,
}

/// What follows from a public key of the gate.
#[derive(Debug)]
struct Labelled {
    mac1: [u8; 32],
    cookie: [u8; 32],
}

/// The porter.
#[derive(Debug)]
pub struct Porter {
    /// What mac1 and cookies are sealed with, for each of the gate's keys.
    keys: Vec<Labelled>,
    secret: [u8; 32],
    secret_since: Instant,
    loaded_until: Option<Instant>,
    /// A table of its own for each, so that none is pushed out by another.
    load: Limits,
    cookies: Limits,
    together: Limits,
    sources: Limits,
}

impl Porter {
    /// Makes one for the gate's public keys, of which there are two at most: each costs a comparison.
    pub fn new(public_keys: &[PublicKey], now: Instant) -> Self {
        let labelled =
            |key: &PublicKey| Labelled { mac1: label_key(b"mac1----", key), cookie: label_key(b"cookie--", key) };
        Self {
            keys: public_keys.iter().map(labelled).collect(),
            secret: random(),
            secret_since: now,
            loaded_until: None,
            load: Limits::new(1, now),
            cookies: Limits::new(1, now),
            together: Limits::new(1, now),
            sources: Limits::new(SOURCES, now),
        }
    }

    /// Judges an initiation or a response, whose type and length are already known to be right.
    pub fn judge(&mut self, from: SocketAddr, asker: Asker, message: &[u8], now: Instant) -> Admission {
        let Some((body, macs)) = message.split_last_chunk::<32>() else {
            return Admission::Refused(Refusal::Mac1);
        };
        let (mac1, mac2) = macs.split_at(16);
        let fits = |key: &Labelled| keyed(&key.mac1).chain_update(body).verify_slice(mac1).is_ok();
        let Some(place) = self.keys.iter().position(fits) else { return Admission::Refused(Refusal::Mac1) };
        if self.is_loaded(now) {
            let cookie = self.cookie(from, now);
            if keyed(&cookie).chain_update(body).chain_update(mac1).verify_slice(mac2).is_err() {
                if self.cookies.check_key(asker, COOKIES, now).is_err() {
                    return Admission::Refused(Refusal::CookieBudget);
                }
                let cookie_key = self.keys.get(place).map_or([0; 32], |key| key.cookie);
                return Admission::Cookie(reply(cookie_key, cookie, body, mac1));
            }
            // Only here: a source that has proven nothing could use up somebody else's bucket.
            if self.sources.check(Client::of(from.ip()), PER_SOURCE, now).is_err() {
                return Admission::Refused(Refusal::Source);
            }
        }
        if self.together.check_key((), TOGETHER, now).is_err() {
            return Admission::Refused(Refusal::Budget);
        }
        Admission::Admitted(place)
    }

    fn is_loaded(&mut self, now: Instant) -> bool {
        if self.load.check_key((), LOAD, now).is_err() {
            self.loaded_until = Some(now + LOAD_LASTS);
        }
        self.loaded_until.is_some_and(|until| now < until)
    }

    /// Returns what only somebody who receives at this address and port can know.
    fn cookie(&mut self, from: SocketAddr, now: Instant) -> [u8; 16] {
        if now.saturating_duration_since(self.secret_since) >= SECRET_LASTS {
            self.secret = random();
            self.secret_since = now;
        }
        // The library leaves the port out; the whitepaper §5.4.7 has it in.
        let mac = match from.ip() {
            IpAddr::V4(v4) => keyed(&self.secret).chain_update(v4.octets()),
            IpAddr::V6(v6) => keyed(&self.secret).chain_update(v6.octets()),
        };
        mac.chain_update(from.port().to_be_bytes()).finalize().into_bytes().into()
    }
}

fn reply(cookie_key: [u8; 32], cookie: [u8; 16], body: &[u8], mac1: &[u8]) -> [u8; 64] {
    let nonce: [u8; 24] = random();
    let mut sealed = cookie;
    let tag = XChaCha20Poly1305::new(&cookie_key.into())
        .encrypt_in_place_detached(&nonce.into(), mac1, &mut sealed)
        .expect("16 bytes are not too long for the cipher");
    let mut reply = [0; 64];
    reply[..4].copy_from_slice(&COOKIE_REPLY);
    // Initiation and response both have the sender's index there.
    reply[4..8].copy_from_slice(body.get(4..8).unwrap_or(&[0; 4]));
    reply[8..32].copy_from_slice(&nonce);
    reply[32..48].copy_from_slice(&sealed);
    reply[48..].copy_from_slice(&tag);
    reply
}

fn label_key(label: &[u8; 8], public_key: &PublicKey) -> [u8; 32] {
    Blake2s256::new().chain_update(label).chain_update(public_key.as_bytes()).finalize().into()
}

fn keyed(key: &[u8]) -> Blake2sMac<U16> {
    <Blake2sMac<U16> as Mac>::new_from_slice(key).expect("keys of up to 32 bytes are allowed")
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has a random source");
    bytes
}
