//! Rules in a table of nf_tables that belongs to our socket: the kernel removes it with the socket, however the process
//! ends. One masquerades; others hold what begins something with a peer to the interfaces of the LAN, since a source
//! address alone proves nothing. And who else has something to say about forwarded packets.
//!
//! The few messages are written by hand: a crate for all of nf_tables would be the larger thing to trust.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use socket2::{Domain, SockRef};

use crate::listen;

/// How long the kernel may take for an answer.
const DEADLINE: Duration = Duration::from_secs(2);

// linux/netlink.h, linux/netfilter/nfnetlink.h
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NFTABLES: u16 = 10;
// linux/netfilter/nf_tables.h
const NEW_TABLE: u16 = NFTABLES << 8;
const NEW_CHAIN: u16 = NFTABLES << 8 | 3;
const GET_CHAIN: u16 = NFTABLES << 8 | 4;
const NEW_RULE: u16 = NFTABLES << 8 | 6;
const TABLE_OWNER: u32 = 2;
const INET: u8 = 1;
const FORWARD: u32 = 2;
const POST_ROUTING: u32 = 4;
/// What others call srcnat.
const PRIORITY: u32 = 100;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
const IN_NAME: u32 = 6;
const OUT_NAME: u32 = 7;
const CT_STATE: u32 = 0;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
// linux/netfilter/nf_conntrack_common.h: one bit for each state, the first of them for what belongs to nothing.
const CT_ESTABLISHED: u32 = 2;
const CT_RELATED: u32 = 4;

/// A table that lives as long as this value: the kernel removes it with the socket that made it.
#[derive(Debug)]
pub(super) struct Table(OwnedFd);

impl AsFd for Table {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Returns the table of the process before this one, if it had one.
pub(super) fn inherited() -> Option<Table> {
    let is_it = |descriptor: BorrowedFd<'_>| {
        SockRef::from(&descriptor).domain().is_ok_and(|domain| domain == Domain::from(libc::AF_NETLINK))
    };
    listen::find_inherited(is_it).into_iter().next().map(Table)
}

/// Attributes, one after another.
#[derive(Default)]
struct Attributes(Vec<u8>);

impl Attributes {
    fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).expect("attributes here are short");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn text(self, kind: u16, text: &str) -> Self {
        self.with(kind, format!("{text}\0").as_bytes())
    }

    fn number(self, kind: u16, number: u32) -> Self {
        self.with(kind, &number.to_be_bytes())
    }

    fn nested(self, kind: u16, inner: Self) -> Self {
        self.with(kind | NESTED, &inner.0)
    }

    /// An expression of a rule.
    fn expression(self, name: &str, data: Self) -> Self {
        self.nested(1, Self::default().text(1, name).nested(2, data))
    }
}

/// What the kernel does with packets of the tunnel besides routing them.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    /// What leaves the tunnel has this box's address.
    pub(super) masquerade: bool,
    /// Only what comes in by these may begin something with a peer. Empty: nothing is known of interfaces.
    pub(super) callers: Vec<String>,
}

/// One expression after the other: what is compared, and what becomes of a packet that fits.
impl Attributes {
    fn meta(self, key: u32) -> Self {
        self.expression("meta", Self::default().number(1, 1).number(2, key))
    }

    fn compare(self, operation: u32, value: &[u8]) -> Self {
        let data = Self::default().with(1, value);
        self.expression("cmp", Self::default().number(1, 1).number(2, operation).nested(3, data))
    }

    fn input_is(self, interface: &str) -> Self {
        self.meta(IN_NAME).compare(EQUAL, &name_of(interface))
    }

    fn output(self, operation: u32, interface: &str) -> Self {
        self.meta(OUT_NAME).compare(operation, &name_of(interface))
    }

    /// The packet belongs to a connection that was begun before, or is an error about one.
    fn answers(self) -> Self {
        let mask = Self::default().with(1, &(CT_ESTABLISHED | CT_RELATED).to_ne_bytes());
        let zero = Self::default().with(1, &[0; 4]);
        let bits = Self::default().number(1, 1).number(2, 1).number(3, 4).nested(4, mask).nested(5, zero);
        self.expression("ct", Self::default().number(1, 1).number(2, CT_STATE))
            .expression("bitwise", bits)
            .compare(NOT_EQUAL, &[0; 4])
    }

    fn verdict(self, code: u32) -> Self {
        let verdict = Self::default().nested(2, Self::default().number(1, code));
        self.expression("immediate", Self::default().number(1, 0).nested(2, verdict))
    }
}

fn name_of(interface: &str) -> [u8; 16] {
    let mut name = [0; 16];
    for (place, letter) in name.iter_mut().zip(interface.bytes()) {
        *place = letter;
    }
    name
}

/// Makes the table of a tunnel's interface.
pub(super) fn table(tunnel: &str, rules: &Rules) -> io::Result<Table> {
    let chain = |name: &str, hook: u32, priority: u32, kind: &str| {
        let hook = Attributes::default().number(1, hook).number(2, priority);
        Attributes::default().text(1, tunnel).text(3, name).nested(4, hook).number(5, ACCEPT).text(7, kind)
    };
    let rule = |chain: &str, expressions: Attributes| {
        Attributes::default().text(1, tunnel).text(2, chain).nested(4, expressions)
    };
    let expressions = Attributes::default;
    let mut wanted = vec![(NEW_TABLE, CREATE, Attributes::default().text(1, tunnel).number(2, TABLE_OWNER))];
    if rules.masquerade {
        // What comes from the tunnel and leaves by another interface.
        let masquerade =
            expressions().input_is(tunnel).output(NOT_EQUAL, tunnel).expression("masq", Attributes::default());
        wanted.push((NEW_CHAIN, CREATE, chain("out", POST_ROUTING, PRIORITY, "nat")));
        wanted.push((NEW_RULE, CREATE | APPEND, rule("out", masquerade)));
    }
    if !rules.callers.is_empty() {
        let to_tunnel = || expressions().output(EQUAL, tunnel);
        wanted.push((NEW_CHAIN, CREATE, chain("callers", FORWARD, 0, "filter")));
        wanted.push((NEW_RULE, CREATE | APPEND, rule("callers", to_tunnel().answers().verdict(ACCEPT))));
        for caller in &rules.callers {
            let expressions = to_tunnel().input_is(caller).verdict(ACCEPT);
            wanted.push((NEW_RULE, CREATE | APPEND, rule("callers", expressions)));
        }
        wanted.push((NEW_RULE, CREATE | APPEND, rule("callers", to_tunnel().verdict(DROP))));
    }

    let mut batch = Vec::new();
    message(&mut batch, BATCH_BEGIN, REQUEST, 0, [0, 0], NFTABLES, &Attributes::default());
    let mut waiting = Vec::new();
    for ((kind, flags, attributes), sequence) in wanted.iter().zip(1..) {
        waiting.push(sequence);
        message(&mut batch, *kind, REQUEST | ACK | flags, sequence, [INET, 0], 0, attributes);
    }
    message(&mut batch, BATCH_END, REQUEST, u32::MAX, [0, 0], NFTABLES, &Attributes::default());

    let socket = open()?;
    socket.send_to(&batch, &SocketAddr::new(0, 0), 0)?;
    while !waiting.is_empty() {
        let (bytes, _) = socket.recv_from_full()?;
        for (kind, sequence, body) in Messages(&bytes) {
            if kind != ERROR {
                continue;
            }
            let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
            if code != 0 {
                return Err(io::Error::from_raw_os_error(-code));
            }
            waiting.retain(|one| *one != sequence);
        }
    }
    Ok(Table(socket.as_fd().try_clone_to_owned()?))
}

/// Returns the base chains that drop forwarded packets which nobody accepts, with their tables.
pub(super) fn droppers() -> Vec<(String, String)> {
    // Without nf_tables there are none.
    chains().unwrap_or_default()
}

fn chains() -> io::Result<Vec<(String, String)>> {
    let socket = open()?;
    let mut question = Vec::new();
    message(&mut question, GET_CHAIN, REQUEST | DUMP, 1, [0, 0], 0, &Attributes::default());
    socket.send_to(&question, &SocketAddr::new(0, 0), 0)?;
    let mut found = Vec::new();
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        for (kind, _, body) in Messages(&bytes) {
            match kind {
                DONE | ERROR => return Ok(found),
                _ => found.extend(dropper(body.get(4..).unwrap_or_default())),
            }
        }
    }
}

fn dropper(attributes: &[u8]) -> Option<(String, String)> {
    let find = |wanted: u16| list(attributes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let number = |value: &[u8]| value.first_chunk().map(|number| u32::from_be_bytes(*number));
    let text = |value: &[u8]| String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
    let hook = list(find(4)?).find(|(kind, _)| *kind == 1).and_then(|(_, value)| number(value));
    let drops = hook == Some(FORWARD) && find(5).and_then(number) == Some(DROP);
    drops.then(|| Some((text(find(1)?), text(find(3)?))))?
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    SockRef::from(&socket).set_read_timeout(Some(DEADLINE))?;
    Ok(socket)
}

fn message(
    to: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    family: [u8; 2],
    resource: u16,
    attributes: &Attributes,
) {
    let length = u32::try_from(20 + attributes.0.len()).expect("messages here are short");
    to.extend(length.to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(flags.to_ne_bytes());
    to.extend(sequence.to_ne_bytes());
    to.extend([0; 4]);
    to.extend(family);
    to.extend(resource.to_be_bytes());
    to.extend(&attributes.0);
}

/// Kind, sequence number and body of each message.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = (u16, u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header: &[u8; 16] = self.0.first_chunk()?;
        let length = usize::try_from(u32::from_ne_bytes([header[0], header[1], header[2], header[3]])).ok()?;
        let body = self.0.get(16..length)?;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let sequence = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, sequence, body))
    }
}

/// Kind and value of each attribute.
fn list(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let header: &[u8; 4] = rest.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let value = rest.get(4..length)?;
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_are_written() {
        let hook = Attributes::default().number(1, FORWARD).number(2, 0);
        let chain = |policy| {
            Attributes::default().text(1, "filter").text(3, "FORWARD").nested(4, hook_of(&hook)).number(5, policy)
        };

        assert_eq!(dropper(&chain(DROP).0), Some(("filter".into(), "FORWARD".into())));
        assert_eq!(dropper(&chain(ACCEPT).0), None);
        assert_eq!(dropper(&[7, 0, 1]), None);
    }

    fn hook_of(hook: &Attributes) -> Attributes {
        Attributes(hook.0.clone())
    }

    #[test]
    fn messages_that_are_cut_off_end_the_list() {
        let mut bytes = Vec::new();
        message(&mut bytes, ERROR, 0, 7, [0, 0], 0, &Attributes::default());
        assert_eq!(Messages(&bytes).map(|(kind, sequence, _)| (kind, sequence)).collect::<Vec<_>>(), [(ERROR, 7)]);

        for length in 0..bytes.len() {
            assert_eq!(Messages(&bytes[..length]).count(), 0);
        }
        assert_eq!(Messages(&[0; 64]).count(), 0);
    }
}
