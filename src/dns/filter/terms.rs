//! The terms of a rule: for which questions and clients it holds, and what it gives. Most rules have none.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{glob::Glob, parse::covers};
use crate::neighbours::Mac;

/// The terms of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Terms {
    /// Types of questions (`$dnstype`); nothing is all.
    pub(super) types: Option<Types>,
    /// Clients (`$client`); nothing is all.
    pub(super) clients: Vec<Client>,
    /// Names in wire form that it leaves out, with all below them (`$denyallow`).
    pub(super) except: Vec<Box<[u8]>>,
    /// More than the name that it stands at has to fit.
    pub(super) glob: Option<Glob>,
    /// What it gives.
    pub(super) gives: Option<Gives>,
    /// It takes the same rule without this word out of force (`$badfilter`).
    pub(super) bad: bool,
}

/// Types of questions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Types {
    /// These.
    Only(Vec<u16>),
    /// All but these.
    AllBut(Vec<u16>),
}

/// A word of `$client`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Client {
    pub(super) who: Who,
    /// `~`: everybody else.
    pub(super) excluded: bool,
}

/// Who is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Who {
    Net(IpNet),
    /// A group, a device by its DHCP name or what it calls itself, or a peer, of that name in lower case.
    Name(String),
    /// The device with that MAC address.
    Mac(Mac),
}

/// What a rule gives instead of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Gives {
    /// NXDOMAIN.
    NxDomain,
    /// NOERROR without records.
    NoData,
    /// REFUSED.
    Refused,
    /// Nothing at all.
    Silence,
    /// Another name, in wire form.
    Alias(Box<[u8]>),
    /// A record: type and data.
    Record(u16, Box<[u8]>),
    /// What it says is left to the exception: any rewrite (`@@…$dnsrewrite`).
    AnyRewrite,
}

impl Gives {
    /// Says whether another answer takes the place of the true one.
    pub(super) const fn is_rewrite(&self) -> bool {
        matches!(self, Self::Alias(_) | Self::Record(..) | Self::AnyRewrite)
    }
}

/// A question, and who asks it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// In wire form and lower case.
    pub(super) name: &'a [u8],
    /// As text in lower case, without the last dot.
    pub(super) text: &'a [u8],
    pub(super) qtype: u16,
    pub(super) client: IpAddr,
    pub(super) group: &'a str,
    /// What the client is called otherwise: by a DHCP server, by itself, as a peer.
    pub(super) called: [Option<&'a str>; 3],
    pub(super) mac: Option<Mac>,
}

impl Terms {
    /// Says whether a rule holds for a question.
    pub(super) fn hold(&self, asked: &Asked<'_>) -> bool {
        let types = match &self.types {
            None => true,
            Some(Types::Only(types)) => types.contains(&asked.qtype),
            Some(Types::AllBut(types)) => !types.contains(&asked.qtype),
        };
        types
            && self.clients_hold(asked)
            && !self.except.iter().any(|name| covers(name, super::Reach::Subtree, asked.name))
            && self.glob.as_ref().is_none_or(|glob| glob.fits(asked.text))
    }

    fn clients_hold(&self, asked: &Asked<'_>) -> bool {
        let is = |client: &Client| match &client.who {
            Who::Net(net) => net.contains(&asked.client),
            Who::Name(name) => {
                let mut called = asked.called.iter().flatten().chain([&asked.group]);
                called.any(|called| called.eq_ignore_ascii_case(name))
            }
            Who::Mac(mac) => asked.mac == Some(*mac),
        };
        if self.clients.iter().any(|client| client.excluded && is(client)) {
            return false;
        }
        let mut wanted = self.clients.iter().filter(|client| !client.excluded).peekable();
        wanted.peek().is_none() || wanted.any(is)
    }

    /// Says whether another answer takes the place of the true one.
    pub(super) fn rewrites(&self) -> bool {
        self.gives.as_ref().is_some_and(Gives::is_rewrite)
    }

    /// Returns about how many bytes they take.
    pub(super) fn bytes(&self) -> usize {
        let names: usize = self.except.iter().map(|name| name.len() + size_of::<Box<[u8]>>()).sum();
        let gives = match &self.gives {
            Some(Gives::Alias(data) | Gives::Record(_, data)) => data.len(),
            _ => 0,
        };
        let types = match &self.types {
            Some(Types::Only(types) | Types::AllBut(types)) => 2 * types.len(),
            None => 0,
        };
        let clients =
            |client: &Client| size_of::<Client>() + if let Who::Name(name) = &client.who { name.len() } else { 0 };
        let glob = self.glob.as_ref().map_or(0, |glob| glob.text().len());
        size_of::<Self>() + names + gives + types + glob + self.clients.iter().map(clients).sum::<usize>()
    }
}
