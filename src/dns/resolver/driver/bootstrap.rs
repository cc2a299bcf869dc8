//! Addresses of encrypted servers that are known by name: asked of servers which are known by address, over
//! plain DNS. Who lies about them gains nothing, because the certificate must have the name.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::{Duration, Instant},
};

use super::{datagram, random::Random};
use crate::dns::resolver::{
    name::Name,
    reply::address,
    wire::{Asked, Message, Question, rtype},
};

/// One server may take so long.
const WAIT: Duration = Duration::from_millis(1200);
/// Addresses are good for at least and at most so long; nobody signed them.
const LIFETIME: std::ops::RangeInclusive<u32> = 60..=3600;
/// Addresses of one name that are tried.
const MOST_ADDRESSES: usize = 4;

/// What is known of the names.
pub(super) struct Bootstrap {
    known: HashMap<Name, Known>,
    random: Random,
    ipv4: bool,
    ipv6: bool,
}

#[derive(Clone)]
struct Known {
    until: Instant,
    addresses: Vec<IpAddr>,
    /// The place of who said so among those who are asked.
    said_by: usize,
    /// Nobody with the right certificate was there.
    doubted: bool,
}

impl Bootstrap {
    pub(super) fn new((ipv4, ipv6): (bool, bool)) -> Self {
        Self { known: HashMap::new(), random: Random::default(), ipv4, ipv6 }
    }

    /// Returns a name's addresses: those that are known, or what one of the servers says; if all are silent, what
    /// was known before.
    pub(super) async fn addresses(
        own: &Rc<RefCell<Self>>,
        name: &Name,
        servers: &[SocketAddr],
    ) -> io::Result<Vec<IpAddr>> {
        let before = own.borrow().known.get(name).cloned();
        if let Some(known) = before.as_ref().filter(|known| known.until > Instant::now() && !known.doubted) {
            return Ok(known.addresses.clone());
        }
        // Who said what led nowhere is asked last.
        let first = before.as_ref().filter(|known| known.doubted).map_or(0, |known| known.said_by + 1);
        for (place, server) in servers.iter().enumerate().cycle().skip(first).take(servers.len()) {
            let (ipv4, ipv6) = (own.borrow().ipv4, own.borrow().ipv6);
            let ask = async |wanted: bool, kind| match wanted {
                true => {
                    Self::ask(own, *server, &Question { name: name.clone(), rtype: kind }).await.unwrap_or_default()
                }
                false => Vec::new(),
            };
            let (v4, v6) = tokio::join!(ask(ipv4, rtype::A), ask(ipv6, rtype::AAAA));
            let ttl = v4.iter().chain(&v6).map(|(_, ttl)| *ttl).min();
            let Some(ttl) = ttl else { continue };
            let half = MOST_ADDRESSES / 2;
            let addresses: Vec<IpAddr> =
                v4.iter().take(half).chain(v6.iter().take(half)).map(|(address, _)| *address).collect();
            let ttl = Duration::from_secs(ttl.clamp(*LIFETIME.start(), *LIFETIME.end()).into());
            let known =
                Known { until: Instant::now() + ttl, addresses: addresses.clone(), said_by: place, doubted: false };
            own.borrow_mut().known.insert(name.clone(), known);
            return Ok(addresses);
        }
        match before {
            Some(known) => Ok(known.addresses),
            None => Err(io::Error::new(io::ErrorKind::NotFound, format!("no bootstrap server knows \"{name}\""))),
        }
    }

    /// Nobody could be connected to where the name leads: it is asked for anew the next time.
    pub(super) fn doubt(&mut self, name: &Name) {
        if let Some(known) = self.known.get_mut(name) {
            known.doubted = true;
        }
    }

    async fn ask(own: &Rc<RefCell<Self>>, server: SocketAddr, question: &Question) -> io::Result<Vec<(IpAddr, u32)>> {
        let (socket, id) = {
            let random = &mut own.borrow_mut().random;
            let mut id = [0; 2];
            random.fill(&mut id);
            (datagram::socket(server, random)?, u16::from_be_bytes(id))
        };
        let asked = Asked {
            id,
            name: question.name.as_wire(),
            rtype: question.rtype,
            recursion_desired: true,
            checking_disabled: false,
            edns_size: None,
            cookie: None,
            block: None,
        };
        socket.send(&asked.encode()).await?;
        let answer = async {
            loop {
                let bytes = datagram::next(&socket).await?;
                // What does not belong here is no answer.
                if let Ok(message) = Message::parse(&bytes)
                    && message.response
                    && message.id == id
                    && message.question.as_ref() == Some(question)
                {
                    return io::Result::Ok(message);
                }
            }
        };
        let message = tokio::time::timeout(WAIT, answer).await??;
        let found = message.answer.iter().filter(|record| record.rtype == question.rtype);
        Ok(found.filter_map(|record| Some((address(record.rtype, &record.rdata)?, record.ttl))).collect())
    }
}
