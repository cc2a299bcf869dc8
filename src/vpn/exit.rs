//! How peers reach the LAN: chosen once, while there still are privileges.

use std::sync::Arc;

use crate::{
    listen::BindError,
    vpn::{
        Config, Mode,
        gate::forward::{Exit, Exits},
        tun::{self, Tun},
    },
};

/// What was chosen, and what is to be said about it.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) tun: Option<Arc<Tun>>,
    pub(super) exits: Exits,
    pub(super) notes: Vec<String>,
}

impl Chosen {
    /// Returns the mode as the configuration names it.
    pub(super) fn name(&self) -> &'static str {
        if self.tun.is_some() { "tun" } else { "userspace" }
    }
}

/// Chooses. Nothing of the system is changed but what vanishes with this process.
pub(super) fn choose(config: &Config) -> Result<Chosen, BindError> {
    let relay = |notes: Vec<String>| Chosen { tun: None, exits: Exits { v4: Exit::Relay, v6: Exit::Relay }, notes };
    let obstacles = match config.mode {
        Mode::Userspace => return Ok(relay(Vec::new())),
        Mode::Auto | Mode::Tun => tun::obstacles(),
    };
    if config.mode == Mode::Auto && !obstacles.is_empty() {
        let chosen = relay(obstacles);
        tracing::info!(why = chosen.notes.join("; "), "peers reach the LAN by relayed TCP and UDP");
        return Ok(chosen);
    }
    let tun = match Tun::open(config) {
        Ok(tun) => tun,
        Err(error) if config.mode == Mode::Auto => {
            let chosen = relay(vec![error.to_string()]);
            tracing::info!(why = chosen.notes.join("; "), "peers reach the LAN by relayed TCP and UDP");
            return Ok(chosen);
        }
        Err(error) => return Err(BindError::Missing { key: "vpn.mode", what: error.to_string() }),
    };
    let mut notes = obstacles;
    let mut exits = Exits { v4: Exit::Kernel, v6: Exit::Kernel };
    if config.addresses.iter().any(|net| net.addr().is_ipv6()) && tun::forwards_no_v6() {
        exits.v6 = Exit::Relay;
        notes
            .push("the kernel forwards no IPv6 (net.ipv6.conf.all.forwarding): TCP and UDP over it are relayed".into());
    }
    tracing::info!(device = tun.name(), notes = notes.join("; "), "peers reach the LAN by the kernel");
    Ok(Chosen { tun: Some(Arc::new(tun)), exits, notes })
}
