//! Addresses whose device is known: what a question needs of the devices, without a lock.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use super::GroupId;
use crate::neighbours::Mac;

/// Addresses with their groups.
#[derive(Debug, Default)]
pub(crate) struct Members(HashMap<IpAddr, Member>);

/// One address.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// The group of its device; `None` if that is told by the address alone.
    pub(crate) group: Option<GroupId>,
    /// Its device.
    pub(crate) mac: Option<Mac>,
    /// What a DHCP server calls it.
    pub(crate) name: Option<Arc<str>>,
    /// Shared by all addresses of the device.
    pub(crate) activity: Arc<Activity>,
}

/// What questions say of a device.
#[derive(Debug, Default)]
pub(crate) struct Activity(AtomicBool);

impl Activity {
    /// Says whether it asked something since this was last called.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Relaxed)
    }

    fn asked(&self) {
        // The line is written to once, however much is asked.
        if !self.0.load(Relaxed) {
            self.0.store(true, Relaxed);
        }
    }
}

impl Members {
    /// Puts addresses together.
    pub(crate) fn new(members: impl IntoIterator<Item = (IpAddr, Member)>) -> Self {
        Self(members.into_iter().collect())
    }

    /// Says whether the device behind an address is known.
    pub(crate) fn knows(&self, address: IpAddr) -> bool {
        self.0.contains_key(&address)
    }

    /// Returns what is known of an address.
    pub(crate) fn find(&self, address: IpAddr) -> Option<&Member> {
        self.0.get(&address)
    }

    /// Notes that an address asks, and returns the group of its device.
    pub(crate) fn ask(&self, address: IpAddr) -> Option<GroupId> {
        if self.0.is_empty() {
            return None;
        }
        let member = self.0.get(&address)?;
        member.activity.asked();
        member.group
    }
}
