//! A client as the rules see it: its group, its address, and whether they hold for it at this moment.

use std::net::{IpAddr, Ipv4Addr};

use super::{
    group::{GroupId, Groups, canonical},
    members::Members,
};
use crate::{
    dns::{Client, ClientName, Config, Device, Paused},
    origin::{NetworkId, Origin},
};

/// Who asks, for one question.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    pub(super) group: GroupId,
    pub(super) address: IpAddr,
    pub(super) origin: Origin,
    /// What it calls itself.
    pub(super) name: Option<ClientName>,
    /// Seconds since 1970.
    pub(super) now: u64,
    /// The rules that block do not hold for it now.
    pub(super) paused: bool,
}

impl Asking {
    /// Returns the group.
    pub const fn group(&self) -> GroupId {
        self.group
    }
}

/// Somebody of the group, whoever it is.
impl From<GroupId> for Asking {
    fn from(group: GroupId) -> Self {
        let origin = Origin::Lan(NetworkId::MAIN);
        Self { group, address: Ipv4Addr::UNSPECIFIED.into(), origin, name: None, now: 0, paused: false }
    }
}

/// Times without filtering.
pub(super) struct Pauses(Vec<(Whom, u64)>);

enum Whom {
    Everybody,
    Group(GroupId),
    Device(Device),
}

impl Pauses {
    pub(super) fn new(config: &Config, groups: &Groups) -> Self {
        let pauses = config.pauses.iter().filter_map(|pause| {
            let whom = match &pause.whom {
                Paused::Everybody => Whom::Everybody,
                Paused::Group(name) => Whom::Group(groups.named(name)?),
                Paused::Device(Device::Net(net)) => Whom::Device(Device::Net(canonical(*net))),
                Paused::Device(device) => Whom::Device(device.clone()),
            };
            Some((whom, pause.until))
        });
        Self(pauses.collect())
    }

    /// Says that there are none.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Says whether the rules do not hold for a client now.
    pub(super) fn cover(&self, client: &Client, group: GroupId, now: u64, members: &Members) -> bool {
        let member = || members.find(client.address.to_canonical());
        self.0.iter().filter(|(_, until)| *until > now).any(|(whom, _)| match whom {
            Whom::Everybody => true,
            Whom::Group(paused) => *paused == group,
            Whom::Device(Device::Net(net)) => net.contains(&client.address.to_canonical()),
            Whom::Device(Device::Peer(peer)) => client.origin == Origin::Vpn(*peer),
            Whom::Device(Device::Client(name)) => client.name == Some(*name),
            Whom::Device(Device::Mac(mac)) => member().is_some_and(|member| member.mac == Some(*mac)),
            Whom::Device(Device::Name(name)) => {
                let called = member().and_then(|member| member.name.as_deref());
                called.is_some_and(|called| called.eq_ignore_ascii_case(name))
            }
        })
    }
}
