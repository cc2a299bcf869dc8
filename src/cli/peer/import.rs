//! `hearthgate peer import`.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};

use crate::{
    app::peers::{Edited, NewPeer, PeerEdit, Secret},
    cli::{Running, client},
    vpn::foreign::Foreign,
};

/// Adds all peers of a file, or none.
pub(super) fn import(
    running: &Running,
    state: Option<PathBuf>,
    file: &Path,
    gate_key: Option<&Path>,
) -> anyhow::Result<()> {
    let state = running.state(state)?;
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let foreign = Foreign::parse(&text).map_err(|error| anyhow!("{}: {error}", file.display()))?;
    let peers: Vec<NewPeer> = foreign
        .peers
        .iter()
        .map(|peer| NewPeer {
            name: peer.name.clone(),
            group: None,
            public_key: peer.public_key.to_string(),
            addresses: peer.addresses.clone(),
            may_reach: None,
            reached_by: Vec::new(),
            confirm: None,
            preshared_key: peer.preshared_key.as_ref().map(Secret::of),
            expires: peer.expires.map(|expires| expires.to_string()),
            keepalive: None,
        })
        .collect();
    let names = peers.iter().map(|peer| peer.name.clone()).collect::<Vec<_>>().join(", ");
    // Before the peers: they are of no use to a gate without the key that they know.
    let written = match (gate_key, &foreign.private_key) {
        (Some(path), Some(key)) => {
            super::write_secret(path, &format!("{}\n", key.reveal()))?;
            Some(path)
        }
        (Some(_), None) => bail!("{}: there is no private key of the server in it", file.display()),
        (None, _) => None,
    };
    let added: anyhow::Result<Edited> = if client::is_running(&state) {
        client::post(&state, "/api/v1/peers/import", &peers)
    } else {
        super::edit_state(running, &state, PeerEdit::Import(peers))
    };
    if let Err(error) = added {
        if let Some(path) = written {
            std::fs::remove_file(path).with_context(|| path.display().to_string())?;
        }
        for line in advice(&foreign, gate_key) {
            eprintln!("{line}");
        }
        return Err(error);
    }
    eprintln!("added: {names}; each may reach \"services\" until you write more");
    for line in advice(&foreign, gate_key) {
        eprintln!("{line}");
    }
    Ok(())
}

/// Says what stands in `[vpn]` where the clients shall not notice the change.
fn advice(foreign: &Foreign, gate_key: Option<&Path>) -> Vec<String> {
    let mut lines = vec!["the clients' own files stay good if [vpn] has:".to_owned()];
    if !foreign.addresses.is_empty() {
        // wg-easy writes its address without a length; its clients are in the /24 around it.
        let wide = |net: &ipnet::IpNet| match net {
            ipnet::IpNet::V4(v4) if v4.prefix_len() == 32 => format!("\"{}/24\"", v4.addr()),
            net => format!("\"{net}\""),
        };
        let addresses: Vec<String> = foreign.addresses.iter().map(wide).collect();
        lines.push(format!("  addresses   = [{}]", addresses.join(", ")));
    }
    if let Some(port) = foreign.port {
        lines.push(format!("  listen      = [\"0.0.0.0:{port}\", \"[::]:{port}\"]"));
    }
    if foreign.private_key.is_some() {
        let path = gate_key.map_or("FILE".to_owned(), |path| path.display().to_string());
        lines.push(format!("  private_key = \"{path}\"     # written by --gate-key FILE"));
    }
    lines
}
