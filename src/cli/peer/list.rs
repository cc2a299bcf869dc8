//! `hearthgate peer list`.

use std::path::PathBuf;

use crate::{
    app::peers::{self, Listed},
    cli::{Running, client, readable},
};

/// Prints the peers, a line for each.
pub(super) fn list(running: &Running, state: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    let folder = running.state(state)?;
    let peers: Vec<Listed> = if client::is_running(&folder) {
        client::get(&folder, "/api/v1/peers")?
    } else {
        eprintln!("no hearthgate is running: this is what the next start will know");
        peers::list(&crate::cli::offline::look(running, &folder)?)
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&peers)?);
        return Ok(());
    }
    for peer in &peers {
        println!("{}", line(peer, jiff::Timestamp::now().as_second()));
    }
    Ok(())
}

fn line(peer: &Listed, now: i64) -> String {
    let addresses = peer.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let group = peer.group.as_deref().unwrap_or("-");
    let mut said = Vec::new();
    if !peer.enabled {
        said.push("disabled".to_owned());
    }
    said.push(match peer.last_handshake.and_then(|at| i64::try_from(at).ok()) {
        Some(at) => format!("last handshake {}", readable(at)),
        None => "no handshake yet".to_owned(),
    });
    if let Some(endpoint) = peer.endpoint {
        said.push(format!("from {endpoint}"));
    }
    if peer.received > 0 || peer.sent > 0 {
        said.push(format!("received {} KiB, sent {} KiB", peer.received / 1024, peer.sent / 1024));
    }
    if let (Some(user), Some(role)) = (&peer.user, peer.role) {
        said.push(format!("{role} {user}"));
    }
    match peer.confirmed_until.and_then(|at| i64::try_from(at).ok()) {
        Some(until) => said.push(format!("confirmed until {}", readable(until))),
        None if peer.must_confirm => said.push("has to confirm".to_owned()),
        None => {}
    }
    match peer.expires {
        Some(at) if at <= now => said.push(format!("expired {}", readable(at))),
        Some(at) => said.push(format!("until {}", readable(at))),
        None => {}
    }
    if peer.told_old_endpoint {
        said.push("was told the old address".to_owned());
    }
    if peer.knows_old_key {
        said.push("knows the gate's old key".to_owned());
    }
    format!("{:<20} {group:<12} {addresses}  {}  {}", peer.name, peer.public_key, said.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_an_owner_wants_to_know() {
        let peer = Listed {
            name: "phone".into(),
            group: None,
            public_key: "key".into(),
            addresses: vec!["10.77.0.2/32".parse().unwrap()],
            user: Some("alice".into()),
            role: Some(crate::origin::Role::Owner),
            must_confirm: true,
            confirmed_until: None,
            enabled: false,
            expires: Some(0),
            told_old_endpoint: true,
            knows_old_key: true,
            last_handshake: None,
            endpoint: Some("192.0.2.1:7".parse().unwrap()),
            received: 2048,
            sent: 0,
        };

        let line = line(&peer, 1);

        for part in [
            "disabled",
            "no handshake yet",
            "from 192.0.2.1:7",
            "received 2 KiB",
            "expired",
            "the old address",
            "owner alice",
            "has to confirm",
            "the gate's old key",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
    }
}
