//! Peers out of the files of others: a server's configuration for `wg-quick` (with the comments in which wg-easy and
//! PiVPN keep names), and the `wg0.json` of wg-easy.

use std::fmt::Write;

use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::Value;

use crate::vpn::{
    Config,
    keys::{PresharedKey, PrivateKey, PublicKey},
};

/// What such a file says.
#[derive(Debug, Default)]
pub struct Foreign {
    /// The server's key.
    pub private_key: Option<PrivateKey>,
    /// Its inner addresses.
    pub addresses: Vec<IpNet>,
    /// Where it listens.
    pub port: Option<u16>,
    /// Its peers.
    pub peers: Vec<ForeignPeer>,
}

/// One of its peers.
#[derive(Debug)]
pub struct ForeignPeer {
    /// A name that can be one here.
    pub name: String,
    /// Who it is.
    pub public_key: PublicKey,
    /// Mixed into the handshake.
    pub preshared_key: Option<PresharedKey>,
    /// What it owns inside.
    pub addresses: Vec<IpNet>,
    /// From then on it is no peer.
    pub expires: Option<Timestamp>,
}

/// A line that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Unreadable {
    /// Counted from 1; 0 for the whole.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

impl Foreign {
    /// Reads a file of either kind.
    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        let mut foreign = if text.trim_start().starts_with('{') { json(text)? } else { quick(text)? };
        if foreign.peers.is_empty() {
            return Err(Unreadable { line: 0, what: "there is no peer in it".into() });
        }
        let mut taken: Vec<String> = Vec::new();
        for peer in &mut foreign.peers {
            let wanted = peer.name.clone();
            let mut number = 2;
            while taken.contains(&peer.name) {
                peer.name = format!("{wanted}-{number}");
                number += 1;
            }
            taken.push(peer.name.clone());
        }
        Ok(foreign)
    }
}

/// Makes a name of what somebody called it.
fn name(called: &str, number: usize) -> String {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    let name: String = called.trim().chars().map(|letter| if fits(letter) { letter } else { '-' }).take(60).collect();
    let name = name.trim_matches('-').to_owned();
    if name.is_empty() { format!("peer-{number}") } else { name }
}

/// What a comment calls the peer beside it.
fn called(comment: &str) -> Option<String> {
    let text = comment.trim_start_matches('#').trim();
    let text = text.trim_end_matches('#').trim();
    // A line that was switched off, keys among them.
    let name_of = |key: &str| matches!(key.trim().to_ascii_lowercase().as_str(), "friendly_name" | "name");
    if text.starts_with('[') || text.split_once('=').is_some_and(|(key, _)| !name_of(key)) {
        return None;
    }
    if text.starts_with("end ") || text.is_empty() || text.eq_ignore_ascii_case("server") {
        return None;
    }
    let text = text.split_once('=').map_or(text, |(_, name)| name);
    let text = ["begin ", "Client:", "Name:"].iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
    // wg-easy writes an identifier after the name.
    let text = text.rsplit_once(" (").map_or(text, |(name, _)| name);
    Some(text.trim().to_owned())
}

#[derive(Default)]
struct Section {
    line: usize,
    called: Option<String>,
    public_key: Option<PublicKey>,
    preshared_key: Option<PresharedKey>,
    addresses: Vec<IpNet>,
}

fn quick(text: &str) -> Result<Foreign, Unreadable> {
    let mut foreign = Foreign::default();
    let mut section: Option<Section> = None;
    let mut comment = None;
    for (number, line) in text.lines().enumerate() {
        let line_number = number + 1;
        let wrong = |what: String| Unreadable { line: line_number, what };
        let line = line.trim();
        if line.starts_with('#') {
            let said = called(line);
            match &mut section {
                // Within a section, before its first key.
                Some(section) if section.public_key.is_none() && section.called.is_none() && said.is_some() => {
                    section.called = said;
                }
                _ => comment = said.or(comment),
            }
            continue;
        }
        if line.is_empty() {
            continue;
        }
        if line.starts_with('[') {
            finish(section.take(), &mut foreign)?;
            let is_peer = line.eq_ignore_ascii_case("[peer]");
            section = is_peer.then(|| Section { line: line_number, called: comment.take(), ..Section::default() });
            comment = None;
            continue;
        }
        let (key, value) = line.split_once('=').ok_or_else(|| wrong(format!("\"{line}\" is no key with a value")))?;
        let (key, value) = (key.trim().to_ascii_lowercase(), value.split('#').next().unwrap_or_default().trim());
        let nets = || -> Result<Vec<IpNet>, Unreadable> {
            value.split(',').map(|one| net(one).ok_or_else(|| wrong(format!("\"{one}\" is no address")))).collect()
        };
        match (&mut section, key.as_str()) {
            (None, "privatekey") => {
                foreign.private_key = Some(value.parse().map_err(|_| wrong("the private key is none".into()))?);
            }
            (None, "address") => foreign.addresses.extend(nets()?),
            (None, "listenport") => foreign.port = value.parse().ok(),
            (Some(peer), "publickey") => {
                peer.public_key = Some(value.parse().map_err(|_| wrong(format!("\"{value}\" is no public key")))?);
            }
            (Some(peer), "presharedkey") => {
                peer.preshared_key = Some(value.parse().map_err(|_| wrong("the preshared key is none".into()))?);
            }
            (Some(peer), "allowedips") => peer.addresses.extend(nets()?),
            _ => {}
        }
    }
    finish(section, &mut foreign)?;
    Ok(foreign)
}

fn net(text: &str) -> Option<IpNet> {
    let text = text.trim();
    text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from))
}

fn finish(section: Option<Section>, foreign: &mut Foreign) -> Result<(), Unreadable> {
    let Some(section) = section else { return Ok(()) };
    let missing = |what: &str| Unreadable { line: section.line, what: format!("the peer has no {what}") };
    let public_key = section.public_key.ok_or_else(|| missing("PublicKey"))?;
    if section.addresses.is_empty() {
        return Err(missing("AllowedIPs"));
    }
    foreign.peers.push(ForeignPeer {
        name: name(section.called.as_deref().unwrap_or_default(), foreign.peers.len() + 1),
        public_key,
        preshared_key: section.preshared_key,
        addresses: section.addresses,
        expires: None,
    });
    Ok(())
}

/// What versions of wg-easy call the end of a client's time.
const EXPIRY: [&str; 3] = ["expiredAt", "expireAt", "expiresAt"];

/// A moment, or a day in UTC, which counts to its end.
fn moment(text: &str) -> Option<Timestamp> {
    let day = || text.parse::<jiff::civil::Date>().ok()?.tomorrow().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
    text.parse().ok().or_else(|| day().map(|day| day.timestamp()))
}

fn json(text: &str) -> Result<Foreign, Unreadable> {
    let wrong = |what: String| Unreadable { line: 0, what };
    let value: Value = serde_json::from_str(text)
        .map_err(|error| Unreadable { line: error.line(), what: "it is no JSON that can be read".into() })?;
    let server = &value["server"];
    let mut foreign = Foreign {
        private_key: server["privateKey"].as_str().and_then(|key| key.parse().ok()),
        addresses: server["address"].as_str().and_then(net).into_iter().collect(),
        ..Foreign::default()
    };
    let clients = value["clients"].as_object().ok_or_else(|| wrong("it has no \"clients\"".into()))?;
    for client in clients.values() {
        // One that is switched off there shall not come in here.
        if client["enabled"] == Value::Bool(false) {
            continue;
        }
        let said = client["name"].as_str().unwrap_or_default();
        let public_key = client["publicKey"].as_str().and_then(|key| key.parse().ok());
        let public_key = public_key.ok_or_else(|| wrong(format!("client \"{said}\" has no public key")))?;
        let address = client["address"].as_str().and_then(net);
        let address = address.ok_or_else(|| wrong(format!("client \"{said}\" has no address")))?;
        let preshared_key = match client["preSharedKey"].as_str().filter(|key| !key.is_empty()) {
            Some(key) => {
                Some(key.parse().map_err(|_| wrong(format!("the preshared key of client \"{said}\" is none")))?)
            }
            None => None,
        };
        let expires = match EXPIRY.iter().find_map(|key| client[*key].as_str()).filter(|text| !text.is_empty()) {
            // One that cannot be read must not become for ever.
            Some(text) => {
                Some(moment(text).ok_or_else(|| wrong(format!("the expiry \"{text}\" of client \"{said}\" is none")))?)
            }
            None => None,
        };
        foreign.peers.push(ForeignPeer {
            name: name(said, foreign.peers.len() + 1),
            public_key,
            preshared_key,
            addresses: vec![address],
            expires,
        });
    }
    Ok(foreign)
}

/// Writes the gate as a server of `wg-quick`: the way back. The key is revealed if it is asked for.
pub fn export(config: &Config, private_key: Option<&PrivateKey>) -> String {
    let list = |nets: &[IpNet]| nets.iter().map(IpNet::to_string).collect::<Vec<_>>().join(", ");
    let mut text = String::from("[Interface]\n");
    let mut line = |what: String| writeln!(text, "{what}").expect("writing to a string does not fail");
    line(match private_key {
        Some(key) => format!("PrivateKey = {}", key.reveal()),
        None => "# PrivateKey = the gate's own key; `--private-key` shows it".into(),
    });
    line(format!("Address = {}", list(&config.addresses)));
    if let Some(listen) = config.listen.first() {
        line(format!("ListenPort = {}", listen.port()));
    }
    for peer in config.peers.iter().filter(|peer| peer.enabled) {
        line(format!("\n[Peer]\n# {}\nPublicKey = {}", peer.name, peer.public_key));
        if let Some(key) = &peer.preshared_key {
            line(format!("PresharedKey = {}", key.reveal()));
        }
        line(format!("AllowedIPs = {}", list(&peer.addresses)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vpn::gate::tests::{config, peer, private_key};

    fn key(number: u32) -> String {
        private_key(number).public_key().to_string()
    }

    #[test]
    fn names_are_taken_from_the_comments_of_others() {
        let text = format!(
            "# Server\n[Interface]\nPrivateKey = {}\nAddress = 10.8.0.1/24\nListenPort = 51820\nPostUp = iptables -A x\n\n\
             # Client: My phone (1b2c)\n[Peer]\nPublicKey = {}\nPresharedKey = {}\nAllowedIPs = 10.8.0.2/32\n\n\
             ### begin laptop ###\n[Peer]\nPublicKey = {}\nAllowedIPs = 10.8.0.3/32, fd00::3/128\n### end laptop ###\n\
             [Peer]\n# friendly_name = desk\nPublicKey = {}\nAllowedIPs = 10.8.0.4\n[Peer]\nPublicKey={}\nAllowedIPs=10.8.0.5/32\n",
            private_key(9).reveal(),
            key(1),
            PresharedKey::generate().reveal(),
            key(2),
            key(3),
            key(4),
        );

        let foreign = Foreign::parse(&text).unwrap();

        let names: Vec<&str> = foreign.peers.iter().map(|peer| peer.name.as_str()).collect();
        assert_eq!(names, ["My-phone", "laptop", "desk", "peer-4"]);
        assert_eq!((foreign.port, foreign.addresses[0].to_string().as_str()), (Some(51_820), "10.8.0.1/24"));
        assert_eq!(foreign.private_key.unwrap().public_key(), private_key(9).public_key());
        assert!(foreign.peers[0].preshared_key.is_some() && foreign.peers[1].preshared_key.is_none());
        assert_eq!(foreign.peers[1].addresses.len(), 2);
        assert_eq!(foreign.peers[3].public_key, private_key(4).public_key());
    }

    #[test]
    fn the_file_of_wg_easy_is_read_without_those_who_are_switched_off() {
        let client = |number: u32, name: &str, enabled: bool| serde_json::json!({ "name": name, "address": format!("10.8.0.{number}"), "publicKey": key(number), "enabled": enabled });
        let text = serde_json::json!({
            "server": { "privateKey": private_key(9).reveal(), "address": "10.8.0.1" },
            "clients": { "a": client(2, "phone", true), "b": client(3, "phone", true), "c": client(4, "gone", false) },
        });

        let foreign = Foreign::parse(&text.to_string()).unwrap();

        let names: Vec<&str> = foreign.peers.iter().map(|peer| peer.name.as_str()).collect();
        assert_eq!(names, ["phone", "phone-2"]);
    }

    #[test]
    fn who_had_a_last_day_at_wg_easy_has_it_here() {
        let read = |key: &str, expires: serde_json::Value| {
            let client = serde_json::json!({ "name": "phone", "address": "10.8.0.2", "publicKey": crate::vpn::gate::tests::private_key(2).public_key().to_string(), key: expires });
            Foreign::parse(&serde_json::json!({ "server": {}, "clients": { "a": client } }).to_string())
        };
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());

        for (key, written, meant) in [
            ("expiredAt", serde_json::json!("2027-01-31T23:59:59.000Z"), at("2027-01-31T23:59:59Z")),
            ("expireAt", serde_json::json!("2027-01-31"), at("2027-02-01T00:00:00Z")),
            ("expiredAt", serde_json::Value::Null, None),
            ("expiredAt", serde_json::json!(""), None),
        ] {
            assert_eq!(read(key, written).unwrap().peers[0].expires, meant, "{key}");
        }
        assert!(read("expiredAt", serde_json::json!("soon")).unwrap_err().what.contains("expiry"));
    }

    #[test]
    fn a_line_that_was_switched_off_is_no_name() {
        let secret = private_key(8).reveal();
        let peer = |comment: &str| {
            let text = format!("[Peer]\n# {comment}\nPublicKey = {}\nAllowedIPs = 10.8.0.2", key(1));
            Foreign::parse(&text).unwrap().peers.remove(0).name
        };

        for comment in [&format!("PrivateKey = {secret}"), &format!("PresharedKey={secret}"), "[Interface]"] {
            assert_eq!(peer(comment), "peer-1", "{comment}");
        }
        for comment in ["Name = desk", "name=desk", "friendly_name=desk", "Name: desk", "desk"] {
            assert_eq!(peer(comment), "desk", "{comment}");
        }
    }

    #[test]
    fn a_preshared_key_that_cannot_be_read_is_not_left_out() {
        let read = |preshared: &str| {
            let client = serde_json::json!({ "name": "phone", "address": "10.8.0.2", "publicKey": key(2), "preSharedKey": preshared });
            Foreign::parse(&serde_json::json!({ "server": {}, "clients": { "a": client } }).to_string())
        };

        assert!(read("").unwrap().peers[0].preshared_key.is_none());
        assert!(read(&PresharedKey::generate().reveal()).unwrap().peers[0].preshared_key.is_some());
        assert!(read("nonsense").unwrap_err().what.contains("preshared key"));
    }

    #[test]
    fn what_makes_no_sense_is_named_by_its_line() {
        for (text, line) in [
            ("[Interface]\nnonsense", 2),
            ("[Peer]\nPublicKey = x", 2),
            ("[Interface]\n[Peer]\nAllowedIPs = 10.8.0.2", 2),
            ("", 0),
            ("{", 1),
        ] {
            assert_eq!(Foreign::parse(text).unwrap_err().line, line, "{text}");
        }
    }

    #[test]
    fn what_is_exported_can_be_imported() {
        let peers = vec![peer(0, "10.77.0.2/32"), peer(1, "fd77::3/128")];
        let config = config(peers);

        let text = export(&config, Some(&config.private_key));
        let foreign = Foreign::parse(&text).unwrap();

        assert_eq!(foreign.private_key.unwrap().public_key(), config.private_key.public_key());
        for (back, peer) in foreign.peers.iter().zip(&config.peers) {
            assert_eq!((&back.name, back.public_key, &back.addresses), (&peer.name, peer.public_key, &peer.addresses));
        }
        assert!(!export(&config, None).contains(&config.private_key.reveal()));
    }
}
