//! A WireGuard client that others wrote: wireguard-go, configured by wg.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use super::{
    edge::{Edge, WAN_V4},
    world::{Host, Program, World, within},
};

/// A key pair as `wg` writes it.
pub(crate) struct Key {
    /// Base64.
    pub(crate) private: String,
    /// Base64.
    pub(crate) public: String,
}

impl Key {
    /// Makes one with `wg genkey` and `wg pubkey`.
    pub(crate) fn new() -> Self {
        let private = super::world::shell("wg genkey").trim().to_owned();
        let mut command = Command::new("wg");
        let mut child =
            command.arg("pubkey").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("wg is there");
        child.stdin.take().expect("it is piped").write_all(private.as_bytes()).expect("wg reads it");
        let output = child.wait_with_output().expect("wg ends");
        Self { private, public: String::from_utf8_lossy(&output.stdout).trim().to_owned() }
    }
}

/// A tunnel from a host on the Internet into the house.
pub(crate) struct Tunnel<'a> {
    host: &'a Host,
    /// The interface's name.
    pub(crate) interface: String,
    _program: Program,
}

impl<'a> Tunnel<'a> {
    /// Starts a client on `roamer` with this key; `last` is the last part of its inner addresses.
    pub(crate) fn start(world: &'a World, edge: &Edge, key: &Key, last: u8) -> Self {
        Self::of(world, &key.private, &edge.gate.public, last)
    }

    /// The same for keys in base64.
    pub(crate) fn of(world: &'a World, private: &str, gate: &str, last: u8) -> Self {
        Self::on(&world.roamer, world, private, gate, last)
    }

    /// The same on another host.
    pub(crate) fn on(host: &'a Host, world: &World, private: &str, gate: &str, last: u8) -> Self {
        // wireguard-go keeps a socket by this name outside the namespace.
        let interface = format!("w{}x{last}", world.tag);
        let program = host.spawn(&world.path(&format!("{interface}.log")), "wireguard-go", &["-f", &interface]);
        let there = within(10, || host.output(&format!("ip link show {interface}")).status.success());
        assert!(there, "wireguard-go made no interface: {}", program.printed());
        let file = world.path(&format!("{interface}.conf"));
        let config = format!(
            "[Interface]\nPrivateKey = {private}\n[Peer]\nPublicKey = {gate}\n\
             AllowedIPs = 10.77.0.0/24, fd77::/64\nEndpoint = {WAN_V4}:443\n"
        );
        std::fs::write(&file, config).expect("the folder is ours");
        host.run(&format!("wg setconf {interface} {}", file.display()));
        let tunnel = Self { host, interface, _program: program };
        tunnel.add_address(last);
        host.run(&format!("ip link set {} up mtu 1420", tunnel.interface));
        host.run(&format!("ip route add 10.77.0.0/24 dev {}", tunnel.interface));
        host.run(&format!("ip route add fd77::/64 dev {}", tunnel.interface));
        tunnel
    }

    /// Gives the client these inner addresses, whether they are its own or not.
    pub(crate) fn add_address(&self, last: u8) {
        self.host.run(&format!("ip addr add 10.77.0.{last}/32 dev {}", self.interface));
        self.host.run(&format!("ip addr add fd77::{last}/128 dev {} nodad", self.interface));
    }

    /// Speaks to the gate by way of another address.
    pub(crate) fn set_endpoint(&self, gate: &str, endpoint: &str) {
        self.host.run(&format!("wg set {} peer {gate} endpoint {endpoint} persistent-keepalive 5", self.interface));
    }

    /// Says whether a handshake has been completed.
    pub(crate) fn is_up(&self) -> bool {
        let shown = self.host.run(&format!("wg show {} latest-handshakes", self.interface));
        shown.split_whitespace().last().is_some_and(|when| when != "0")
    }
}
