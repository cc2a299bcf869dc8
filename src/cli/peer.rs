//! `hearthgate peer`: who may come in through the VPN.

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use ipnet::IpNet;

use crate::{
    app::{
        self, Options,
        control::Refusal,
        peers::{self, Edited, Listed, NewPeer, PeerEdit},
    },
    cli::{Problem, Running, client},
    config::{self, Loaded, PeerIds, edits::Edits, generations},
    privilege,
    vpn::{
        self,
        keys::{PrivateKey, PublicKey},
    },
};

#[derive(Debug, Subcommand)]
pub(super) enum Peer {
    /// Add a peer and print the configuration for its device, once
    Add(Add),
    /// List the peers
    List {
        #[command(flatten)]
        running: Running,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Remove a peer; its sessions and open streams end at once
    Remove {
        /// What it is called
        name: String,
        #[command(flatten)]
        running: Running,
    },
}

#[derive(Args, Debug)]
pub(super) struct Add {
    /// What it will be called
    name: String,
    /// Its group
    #[arg(long)]
    group: Option<String>,
    /// What it may reach, with commas between: services, dns, route:HOST, PREFIX, "tcp PREFIX PORT", peer:NAME, internet
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    may_reach: Option<Vec<String>>,
    /// The public key of a key pair that the device made itself
    #[arg(long, value_name = "KEY")]
    public_key: Option<PublicKey>,
    /// Its inner address, instead of the next free ones; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    address: Vec<String>,
    /// Draw a QR code even if standard error is no terminal
    #[arg(long)]
    qr: bool,
    #[command(flatten)]
    running: Running,
}

impl Peer {
    pub(super) fn execute(self, state: Option<PathBuf>) -> anyhow::Result<()> {
        match self {
            Self::Add(add) => add.execute(state),
            Self::List { running, json } => list(&running, state, json),
            Self::Remove { name, running } => {
                let folder = running.state(state.clone())?;
                if client::is_running(&folder) {
                    let _: Edited = client::delete(&folder, &format!("/api/v1/peers/{name}"))?;
                    eprintln!("peer \"{name}\" is removed");
                } else {
                    edit_state(&running, &folder, PeerEdit::Remove(name.clone()))?;
                    eprintln!("peer \"{name}\" is removed; no hearthgate is running, it applies at the next start");
                }
                Ok(())
            }
        }
    }
}

impl Add {
    fn execute(self, state: Option<PathBuf>) -> anyhow::Result<()> {
        let state = self.running.state(state)?;
        let (private_key, public_key) = match self.public_key {
            Some(key) => (None, key),
            None => {
                let private_key = PrivateKey::generate();
                let public_key = private_key.public_key();
                (Some(private_key), public_key)
            }
        };
        let new = NewPeer {
            name: self.name.clone(),
            group: self.group,
            public_key: public_key.to_string(),
            addresses: self.address.iter().map(|text| address(text)).collect::<anyhow::Result<_>>()?,
            may_reach: self.may_reach.map(|words| words.iter().map(|word| word.trim().to_owned()).collect()),
        };
        let text = add(&self.running, &state, new, private_key.as_ref())?;
        show(&text, private_key.is_some(), self.qr)
    }
}

/// Adds a peer, in the running process if there is one, and returns the configuration for its device.
pub(super) fn add(
    running: &Running,
    state: &Path,
    new: NewPeer,
    private_key: Option<&PrivateKey>,
) -> anyhow::Result<String> {
    let name = new.name.clone();
    let edited = if client::is_running(state) {
        client::post(state, "/api/v1/peers", &new)?
    } else {
        let edited = edit_state(running, state, PeerEdit::Add(new))?;
        eprintln!("no hearthgate is running: peer \"{name}\" can come in from the next start");
        edited
    };
    let invitation = edited.invitation.with_context(|| format!("peer \"{name}\" was added and is not there"))?;
    if invitation.endpoint_is_guessed {
        eprintln!("`vpn.endpoint` is not set: the line \"Endpoint\" is a guess");
    }
    Ok(private_key.map_or_else(|| invitation.configuration.clone(), |key| invitation.with_private_key(key)))
}

/// Prints the configuration alone on standard output, and everything else beside it.
pub(super) fn show(text: &str, has_private_key: bool, qr: bool) -> anyhow::Result<()> {
    print!("{text}");
    std::io::stdout().flush()?;
    if has_private_key && (qr || std::io::stderr().is_terminal()) {
        eprintln!("\n{}", vpn::qr(text).context("the configuration is too long for a QR code")?);
    }
    if has_private_key {
        eprintln!("the private key is shown this once and kept nowhere");
    }
    Ok(())
}

fn address(text: &str) -> anyhow::Result<IpNet> {
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
    net.map_err(|_| anyhow!("--address {text}: it is neither an address nor a network"))
}

fn list(running: &Running, state: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    let folder = running.state(state)?;
    let peers: Vec<Listed> = if client::is_running(&folder) {
        client::get(&folder, "/api/v1/peers")?
    } else {
        eprintln!("no hearthgate is running: this is what the next start will know");
        peers::list(&look(running, &folder)?.compiled)
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&peers)?);
        return Ok(());
    }
    for peer in peers {
        let addresses = peer.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        println!("{:<20} {:<12} {}  {addresses}", peer.name, peer.group.as_deref().unwrap_or("-"), peer.public_key);
    }
    Ok(())
}

fn options(running: &Running, state: &Path) -> Options {
    Options { source: running.source(), state: Some(state.to_owned()), ..Options::default() }
}

fn look(running: &Running, state: &Path) -> anyhow::Result<Loaded> {
    let options = options(running, state);
    config::check(options.source.to_config(), &options.to_config(), &mut PeerIds::default())
        .map_err(|problems| anyhow!(Problem(problems.to_string())))
}

/// Changes the edits of a state folder that no process uses; a change that the configuration refuses is
/// taken back.
fn edit_state(running: &Running, state: &Path, edit: PeerEdit) -> anyhow::Result<Edited> {
    let options = options(running, state);
    if app::holder(state).is_some() {
        return Err(anyhow!("hearthgate runs on {} but does not answer", state.display()));
    }
    if state.exists() {
        privilege::act_as_owner(state)?;
    }
    let last = generations::list(state).ok().and_then(|kept| kept.into_iter().next_back());
    if options.source == app::Source::QuickStart && last.is_some_and(|last| last.file != config::QUICK_START) {
        return Err(anyhow!("{} belongs to a configuration file: name it with --config FILE", state.display()));
    }
    let failed = |refusal: Refusal| anyhow!(refusal.failure().error.clone());
    let load = || {
        config::load(options.source.to_config(), &options.to_config(), &mut PeerIds::default())
            .map_err(|problems| anyhow!(Problem(problems.to_string())))
    };
    let loaded = load()?;
    let mut edits = Edits::read(state)?;
    let before = edits.text();
    let name = edit.name().to_owned();
    peers::apply(&mut edits, edit, &loaded.compiled).map_err(failed)?;
    match load() {
        Ok(loaded) => Ok(peers::edited(&name, &loaded.compiled)),
        Err(error) => {
            edits.write(before)?;
            Err(error)
        }
    }
}
