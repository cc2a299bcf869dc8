//! What is on the LAN at this moment, followed by netlink.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::origin::NetworkId;

/// What the owner says about the LAN: the meant form of `[lan]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Names of the interfaces on whose wires everybody is the LAN.
    pub interfaces: Vec<String>,
    /// Networks behind other routers, and the named networks.
    pub subnets: Vec<(IpNet, NetworkId)>,
    /// Addresses of this box which the kernel does not know.
    pub this_box: Vec<IpAddr>,
    /// Addresses that speak for others; the default gateways come on top.
    pub relays: Vec<IpAddr>,
}
