//! What is kept in the state folder: accounts, certificates, and how far each order is. All of it is 0600.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    ingress::{
        Acme, HostPattern, Order, Side,
        ca::{Pair, read_pair},
    },
    store,
};

/// How far an order is. It survives restarts, so that a process that is started again and again does not ask
/// the CA again and again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Progress {
    /// The directory that the certificate came from.
    pub(super) directory: Option<String>,
    /// The profile that it was ordered with.
    pub(super) profile: Option<String>,
    /// Attempts that failed since the last that did not.
    pub(super) failures: u32,
    /// No attempt before this second.
    pub(super) not_before: u64,
    /// What went wrong the last time.
    pub(super) problem: Option<String>,
    /// When it is renewed; chosen once within the CA's window.
    pub(super) renew_at: Option<u64>,
    /// The end of that window: another window is another choice.
    pub(super) window_end: Option<u64>,
    /// When the CA is asked for its window again.
    pub(super) ask_window_at: u64,
}

fn folder(state: &Path) -> PathBuf {
    state.join("acme")
}

fn file(state: &Path, order: &Order, kind: &str) -> PathBuf {
    let name = match &order.name {
        HostPattern::Exact(host) => host.as_str().to_owned(),
        HostPattern::Wildcard(base) => format!("any.{base}"),
        HostPattern::Any => "any".to_owned(),
    };
    let side = match order.side {
        Side::Public => "public",
        Side::Inside => "inside",
    };
    folder(state).join(format!("{name}.{side}.{kind}"))
}

/// Reads the certificate of an order with its key; what cannot be read counts as not there.
pub(in crate::ingress) fn certificate(state: &Path, order: &Order) -> Option<Pair> {
    let path = file(state, order, "certificate");
    read_pair(&path).unwrap_or_else(|error| {
        tracing::warn!(%error, "a certificate in the state folder cannot be read");
        None
    })
}

pub(super) fn keep_certificate(state: &Path, order: &Order, pair: &Pair) -> io::Result<()> {
    store::folder(&folder(state))?;
    store::write(&file(state, order, "certificate"), pair.joined().as_bytes())
}

pub(super) fn progress(state: &Path, order: &Order) -> Progress {
    let found = store::read(&file(state, order, "progress")).ok().and_then(store::Found::content);
    found.and_then(|content| serde_json::from_slice(&content).ok()).unwrap_or_default()
}

pub(super) fn keep_progress(state: &Path, order: &Order, progress: &Progress) -> io::Result<()> {
    store::folder(&folder(state))?;
    let content = serde_json::to_vec(progress).map_err(io::Error::other)?;
    store::write(&file(state, order, "progress"), &content)
}

/// Where the account of a directory lies: one for each address that the CA writes to and each binding.
fn account_file(state: &Path, url: &str, acme: &Acme) -> PathBuf {
    let mut digest = Sha256::new();
    for part in [Some(url), acme.email.as_deref(), acme.eab.as_ref().map(|eab| eab.kid.as_str())] {
        digest.update(part.unwrap_or_default());
        digest.update([0]);
    }
    let name: String = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    folder(state).join(format!("{name}.account"))
}

pub(super) fn account(state: &Path, url: &str, acme: &Acme) -> Option<Vec<u8>> {
    store::read(&account_file(state, url, acme)).ok().and_then(store::Found::content)
}

pub(super) fn keep_account(state: &Path, url: &str, acme: &Acme, credentials: &[u8]) -> io::Result<()> {
    store::folder(&folder(state))?;
    store::write(&account_file(state, url, acme), credentials)
}

pub(super) fn forget_account(state: &Path, url: &str, acme: &Acme) -> io::Result<()> {
    let path = account_file(state, url, acme);
    std::fs::rename(&path, path.with_extension("unknown"))
}
