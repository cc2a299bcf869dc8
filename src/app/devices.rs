//! What `hearthgate devices` asks and says.

use serde::{Deserialize, Serialize};

use crate::{
    app::{Edge, control::Refusal},
    dns::KnownDevice,
    neighbours::Mac,
};

/// The devices of the house.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Devices {
    /// All that are remembered, those that were seen last first.
    pub devices: Vec<KnownDevice>,
    /// What is odd about their groups.
    pub problems: Vec<String>,
}

/// Devices that their owner knows.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Accept {
    /// One of them; all that were seen so far without it.
    pub mac: Option<Mac>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Accepted {
    /// How many were new.
    pub devices: usize,
}

impl Edge {
    /// Returns the devices of the house.
    pub fn devices(&self) -> Result<Devices, Refusal> {
        let (devices, problems) = self.dns()?.devices();
        Ok(Devices { devices, problems })
    }

    /// Takes devices out of the group `new`.
    pub fn accept_devices(&self, accept: Accept) -> Result<Accepted, Refusal> {
        Ok(Accepted { devices: self.dns()?.accept_devices(accept.mac) })
    }

    fn dns(&self) -> Result<&crate::dns::Plane, Refusal> {
        self.planes.dns.as_deref().ok_or_else(|| Refusal::missing("there is no [dns], which knows the devices"))
    }
}
