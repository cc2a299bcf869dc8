//! A peer's own configuration, as `wg-quick` and the WireGuard apps read it, and as a picture for a phone.

use std::fmt::Write;

use ipnet::IpNet;

use crate::vpn::{
    Peer, Reach,
    keys::{PrivateKey, PublicKey},
};

/// What a peer's configuration says of the gate.
#[derive(Clone, Debug)]
pub struct GateSide {
    /// Its key.
    pub public_key: PublicKey,
    /// Where it listens, `host:port`.
    pub endpoint: String,
    /// Its inner addresses with their prefixes.
    pub addresses: Vec<IpNet>,
    /// There is a DNS plane behind it.
    pub dns: bool,
    /// The domain of the house: what is searched, and asked of the gate alone where the client can split.
    pub domain: Option<String>,
}

/// How often a client behind a NAT says that it is there.
const KEEPALIVE: u64 = 25;

/// Writes a peer's configuration. Without a private key there is a line that says where it goes.
pub fn client_configuration(private: Option<&PrivateKey>, gate: &GateSide, peer: &Peer) -> String {
    let list = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join(", ");
    let mut text = String::from("[Interface]\n");
    match private {
        Some(key) => line(&mut text, "PrivateKey", &key.reveal()),
        None => text.push_str("# PrivateKey = the key that belongs to the public key below stays on the device\n"),
    }
    if private.is_none() {
        line(&mut text, "# PublicKey", &peer.public_key.to_string());
    }
    line(&mut text, "Address", &list(&mut peer.addresses.iter().map(IpNet::to_string)));
    let asks = |reach: &Reach| matches!(reach, Reach::Dns | Reach::Services);
    if gate.dns && peer.may_reach.iter().any(asks) {
        let servers = gate.addresses.iter().map(|address| address.addr().to_string());
        line(&mut text, "DNS", &list(&mut servers.chain(gate.domain.clone())));
    }
    text.push_str("\n[Peer]\n");
    line(&mut text, "PublicKey", &gate.public_key.to_string());
    if let Some(key) = &peer.preshared_key {
        line(&mut text, "PresharedKey", &key.reveal());
    }
    line(&mut text, "Endpoint", &gate.endpoint);
    line(&mut text, "AllowedIPs", &list(&mut allowed(gate, peer).iter().map(IpNet::to_string)));
    let keepalive = peer.keepalive.map_or(KEEPALIVE, |keepalive| keepalive.as_secs());
    line(&mut text, "PersistentKeepalive", &keepalive.to_string());
    text
}

fn line(text: &mut String, key: &str, value: &str) {
    writeln!(text, "{key} = {value}").expect("writing to a string does not fail");
}

/// Returns what the client sends into the tunnel.
fn allowed(gate: &GateSide, peer: &Peer) -> Vec<IpNet> {
    let everything = ["0.0.0.0/0", "::/0"].map(|net| net.parse().expect("a prefix"));
    if peer.may_reach.contains(&Reach::Internet) {
        // Both families: what went past the tunnel in the other one would be a leak.
        return everything.into();
    }
    let mut allowed: Vec<IpNet> = gate.addresses.iter().map(IpNet::trunc).collect();
    for reach in &peer.may_reach {
        if let Reach::Net(net) | Reach::Ports { net, .. } = reach
            && !allowed.contains(&net.trunc())
        {
            allowed.push(net.trunc());
        }
    }
    allowed
}

/// Draws a text as a QR code of half blocks, dark on light, to be read from a terminal of either kind.
///
/// `None` if the text is too long for a code.
pub fn qr(text: &str) -> Option<String> {
    let code = qrcode::QrCode::with_error_correction_level(text, qrcode::EcLevel::L).ok()?;
    let width = i64::try_from(code.width()).ok()?;
    let colors = code.to_colors();
    // The quiet zone of 4 modules is part of the code.
    let dark = |x: i64, y: i64| {
        let inside = (0..width).contains(&x) && (0..width).contains(&y);
        inside && usize::try_from(y * width + x).is_ok_and(|at| colors.get(at) == Some(&qrcode::Color::Dark))
    };
    let mut picture = String::new();
    for y in (-4..width + 4).step_by(2) {
        // Black on white whatever the terminal's own colours are.
        picture.push_str("\x1b[30;107m");
        for x in -4..width + 4 {
            picture.push(match (dark(x, y), dark(x, y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        picture.push_str("\x1b[0m\n");
    }
    Some(picture)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vpn::gate::tests::{peer, private_key};

    fn gate() -> GateSide {
        GateSide {
            public_key: private_key(1_000).public_key(),
            endpoint: "vpn.home.example:443".into(),
            addresses: vec!["10.77.0.1/24".parse().unwrap(), "fd77::1/64".parse().unwrap()],
            dns: true,
            domain: Some("home.example".into()),
        }
    }

    #[test]
    fn a_peer_gets_what_it_may_reach() {
        let mut peer = peer(0, "10.77.0.2/32");
        peer.may_reach.push(Reach::Net("192.168.1.0/24".parse().unwrap()));

        let text = client_configuration(Some(&private_key(0)), &gate(), &peer);

        let expected = format!(
            "[Interface]\nPrivateKey = {}\nAddress = 10.77.0.2/32\nDNS = 10.77.0.1, fd77::1, home.example\n\n\
             [Peer]\nPublicKey = {}\nEndpoint = vpn.home.example:443\n\
             AllowedIPs = 10.77.0.0/24, fd77::/64, 192.168.1.0/24\nPersistentKeepalive = 25\n",
            private_key(0).reveal(),
            gate().public_key,
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn the_internet_goes_through_the_tunnel_in_both_families() {
        let mut peer = peer(0, "10.77.0.2/32");
        peer.may_reach.push(Reach::Internet);

        let text = client_configuration(None, &gate(), &peer);

        assert!(text.contains("AllowedIPs = 0.0.0.0/0, ::/0\n"), "{text}");
        assert!(text.contains("# PrivateKey") && !text.contains("\nPrivateKey"), "{text}");
    }

    #[test]
    fn a_whole_configuration_fits_a_code() {
        let text = client_configuration(Some(&private_key(0)), &gate(), &peer(0, "10.77.0.2/32"));

        let picture = qr(&text).unwrap();

        let lines = picture.lines().count();
        assert!(lines > 20 && lines < 60, "{lines} lines");
        assert_eq!(qr(&"x".repeat(10_000)), None);
    }
}
