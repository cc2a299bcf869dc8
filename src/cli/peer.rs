//! `hearthgate peer`: who may come in through the VPN.

mod import;
mod list;

use std::{
    io::{IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use ipnet::IpNet;

use crate::{
    app::{
        confirm::SetUp,
        peers::{self, Edited, NewKeys, NewPeer, PeerEdit, Secret},
    },
    cli::{Running, client, confirm, offline},
    config::edits::Switch,
    vpn::{
        self,
        keys::{PresharedKey, PrivateKey, PublicKey},
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
    /// Give a peer new keys and print its new configuration, once; what it has open ends at once
    Rotate(Rotate),
    /// Let a peer in again that was disabled
    Enable(Named),
    /// Keep a peer out; its sessions and open streams end at once, its place stays
    Disable(Named),
    /// Add the peers of a server's file: of wg-quick, or wg0.json of wg-easy
    Import {
        /// The file
        file: PathBuf,
        /// Write the server's private key to this file, for vpn.private_key: the clients need not change then
        #[arg(long, value_name = "FILE")]
        gate_key: Option<PathBuf>,
        #[command(flatten)]
        running: Running,
    },
    /// Print what an authenticator app reads, once, for a peer with `confirm`; what was confirmed before is not any more
    ConfirmSetup(Named),
    /// Print the gate and its peers as a server's file for wg-quick
    Export {
        /// With the gate's private key
        #[arg(long)]
        private_key: bool,
        #[command(flatten)]
        running: Running,
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
    /// Who may begin something with it, with commas between: lan, PREFIX, "tcp PREFIX PORT", peer:NAME
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    reached_by: Vec<String>,
    /// Its person confirms it by an authenticator, which holds so long, as 12h; until then it reaches nothing
    #[arg(long, value_name = "TIME")]
    confirm: Option<String>,
    /// The public key of a key pair that the device made itself
    #[arg(long, value_name = "KEY")]
    public_key: Option<PublicKey>,
    /// Its inner address, instead of the next free ones; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    address: Vec<String>,
    /// Its last day, as 2027-01-31, or a moment, as 2027-01-31T18:00:00+01:00
    #[arg(long, value_name = "DATE")]
    expires: Option<String>,
    /// The persistent keepalive of its configuration, as 25s
    #[arg(long, value_name = "TIME")]
    keepalive: Option<String>,
    #[command(flatten)]
    handing: Handing,
    #[command(flatten)]
    running: Running,
}

#[derive(Args, Debug)]
pub(super) struct Rotate {
    /// What it is called
    name: String,
    /// The public key of a key pair that the device made itself
    #[arg(long, value_name = "KEY")]
    public_key: Option<PublicKey>,
    #[command(flatten)]
    handing: Handing,
    #[command(flatten)]
    running: Running,
}

/// How a configuration is handed out.
#[derive(Args, Debug)]
struct Handing {
    /// No preshared key, which a client may not know
    #[arg(long)]
    no_preshared_key: bool,
    /// Draw a QR code even if standard error is no terminal
    #[arg(long)]
    qr: bool,
    /// Write the configuration to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct Named {
    /// What it is called
    name: String,
    #[command(flatten)]
    running: Running,
}

impl Peer {
    pub(super) fn execute(self, state: Option<PathBuf>) -> anyhow::Result<()> {
        match self {
            Self::Add(add) => add.execute(state),
            Self::List { running, json } => list::list(&running, state, json),
            Self::Rotate(rotate) => rotate.execute(state),
            Self::Enable(named) => named.switch(state, Switch::On),
            Self::Disable(named) => named.switch(state, Switch::Off),
            Self::Import { file, gate_key, running } => import::import(&running, state, &file, gate_key.as_deref()),
            Self::ConfirmSetup(named) => named.set_up(state),
            Self::Export { private_key, running } => {
                let folder = running.state(state)?;
                let compiled = offline::look(&running, &folder)?;
                let config = compiled.vpn.context("the configuration has no [vpn]")?;
                print!("{}", vpn::foreign::export(&config, private_key.then_some(&config.private_key)));
                Ok(())
            }
            Self::Remove { name, running } => {
                let folder = running.state(state.clone())?;
                if client::is_running(&folder) {
                    let _: Edited = client::delete(&folder, &format!("/api/v1/peers/{name}"))?;
                    eprintln!("peer \"{name}\" is removed");
                    confirm::remind(&folder)?;
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
        let (private_key, public_key) = pair(self.public_key);
        let new = NewPeer {
            name: self.name.clone(),
            group: self.group,
            public_key: public_key.to_string(),
            addresses: self.address.iter().map(|text| address(text)).collect::<anyhow::Result<_>>()?,
            may_reach: self.may_reach.map(|words| words.iter().map(|word| word.trim().to_owned()).collect()),
            reached_by: self.reached_by.iter().map(|word| word.trim().to_owned()).collect(),
            preshared_key: self.handing.preshared_key(),
            confirm: self.confirm,
            expires: self.expires,
            keepalive: self.keepalive,
        };
        let text = add(&self.running, &state, new, private_key.as_ref())?;
        self.handing.show(&text, private_key.is_some())
    }
}

impl Rotate {
    fn execute(self, state: Option<PathBuf>) -> anyhow::Result<()> {
        let state = self.running.state(state)?;
        let (private_key, public_key) = pair(self.public_key);
        let keys = NewKeys { public_key: public_key.to_string(), preshared_key: self.handing.preshared_key() };
        let edited = if client::is_running(&state) {
            let edited = client::post(&state, &format!("/api/v1/peers/{}/rotate", self.name), &keys)?;
            confirm::remind(&state)?;
            edited
        } else {
            edit_state(&self.running, &state, PeerEdit::Rotate(self.name.clone(), keys))?
        };
        let text = invite(edited, &self.name, private_key.as_ref())?;
        self.handing.show(&text, private_key.is_some())
    }
}

impl Named {
    fn switch(self, state: Option<PathBuf>, switch: Switch) -> anyhow::Result<()> {
        let state = self.running.state(state)?;
        let (verb, done) = match switch {
            Switch::On => ("enable", "enabled"),
            Switch::Off => ("disable", "disabled"),
        };
        if client::is_running(&state) {
            let _: Edited = client::post(&state, &format!("/api/v1/peers/{}/{verb}", self.name), &())?;
            eprintln!("peer \"{}\" is {done}", self.name);
            confirm::remind(&state)?;
        } else {
            edit_state(&self.running, &state, PeerEdit::Switch(self.name.clone(), switch))?;
            eprintln!("peer \"{}\" is {done}; no hearthgate is running, it applies at the next start", self.name);
        }
        Ok(())
    }
}

impl Named {
    /// Standard output has the address alone, so that it can be piped; the picture is for a person.
    fn set_up(self, state: Option<PathBuf>) -> anyhow::Result<()> {
        let state = self.running.state(state)?;
        let done: SetUp = if client::is_running(&state) {
            client::post(&state, &format!("/api/v1/peers/{}/confirm-setup", self.name), &())?
        } else {
            offline::set_up_confirmation(&self.running, &state, &self.name)?
        };
        if std::io::stderr().is_terminal() {
            eprintln!("{}", vpn::qr(&done.uri).context("it is too long for a QR code")?);
        }
        println!("{}", done.uri);
        eprintln!("show it to the authenticator now: it is kept nowhere that can be shown again");
        eprintln!("peer \"{}\" confirms at http://GATE/, the gate's address inside the tunnel", self.name);
        Ok(())
    }
}

impl Handing {
    fn preshared_key(&self) -> Option<Secret> {
        (!self.no_preshared_key).then(|| Secret::of(&PresharedKey::generate()))
    }

    fn show(&self, text: &str, has_private_key: bool) -> anyhow::Result<()> {
        match &self.out {
            None => show(text, has_private_key, self.qr),
            Some(path) => {
                write_secret(path, text)?;
                show_code(text, has_private_key, self.qr)
            }
        }
    }
}

/// Writes a file that nobody else may read, where there was none.
fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.with_context(|| format!("{} cannot be made", path.display()))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(|| path.display().to_string())
}

/// Returns the device's own public key, or a new pair.
fn pair(own: Option<PublicKey>) -> (Option<PrivateKey>, PublicKey) {
    match own {
        Some(key) => (None, key),
        None => {
            let private_key = PrivateKey::generate();
            let public_key = private_key.public_key();
            (Some(private_key), public_key)
        }
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
    invite(edited, &name, private_key)
}

fn invite(edited: Edited, name: &str, private_key: Option<&PrivateKey>) -> anyhow::Result<String> {
    let invitation = edited.invitation.with_context(|| format!("peer \"{name}\" was changed and is not there"))?;
    if invitation.endpoint_is_guessed {
        eprintln!("`vpn.endpoint` is not set: the line \"Endpoint\" is a guess");
    }
    Ok(private_key.map_or_else(|| invitation.configuration.clone(), |key| invitation.with_private_key(key)))
}

/// Prints the configuration alone on standard output, and everything else beside it.
pub(super) fn show(text: &str, has_private_key: bool, qr: bool) -> anyhow::Result<()> {
    print!("{text}");
    std::io::stdout().flush()?;
    show_code(text, has_private_key, qr)
}

fn show_code(text: &str, has_private_key: bool, qr: bool) -> anyhow::Result<()> {
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

/// Changes the peers of a state folder that no process uses.
fn edit_state(running: &Running, state: &Path, edit: PeerEdit) -> anyhow::Result<Edited> {
    let name = edit.name().to_owned();
    let what = edit.to_string();
    let config = offline::edit(running, state, &what, |edits, config| peers::apply(edits, edit, config))?;
    Ok(peers::edited(&name, &config))
}
