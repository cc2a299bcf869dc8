//! Commands on a state folder that no process uses.

use std::path::Path;

use anyhow::anyhow;

use crate::{
    app::{
        self, Options,
        confirm::{self, SetUp},
        control::Refusal,
        offline,
    },
    cli::{Problem, Running},
    config::{self, Compiled, PeerIds, edits::Edits, generations},
    privilege,
};

fn options(running: &Running, state: &Path) -> Options {
    Options { source: running.source(), state: Some(state.to_owned()), ..Options::default() }
}

fn failed(refusal: Refusal) -> anyhow::Error {
    anyhow!(refusal.failure().error.clone())
}

/// Returns what the next start will know.
pub(super) fn look(running: &Running, state: &Path) -> anyhow::Result<Compiled> {
    let options = options(running, state);
    config::check(options.source.to_config(), &options.to_config(), &mut PeerIds::default())
        .map(|loaded| loaded.compiled)
        .map_err(|problems| anyhow!(Problem(problems.to_string())))
}

/// Refuses what would be done to the state of somebody else's file.
fn admit(running: &Running, state: &Path) -> anyhow::Result<()> {
    if state.exists() {
        privilege::act_as_owner(state)?;
    }
    let last = generations::list(state).ok().and_then(|kept| kept.into_iter().next_back());
    if running.source() == app::Source::QuickStart && last.is_some_and(|last| last.file != config::QUICK_START) {
        return Err(anyhow!("{} belongs to a configuration file: name it with --config FILE", state.display()));
    }
    // A configuration that is bad already makes no folder.
    look(running, state).map(drop)
}

/// Changes the edits, and returns what they led to; a change that the configuration refuses is taken back.
pub(super) fn edit(
    running: &Running,
    state: &Path,
    what: &str,
    apply: impl FnOnce(&mut Edits, &Compiled) -> Result<(), Refusal>,
) -> anyhow::Result<Compiled> {
    admit(running, state)?;
    offline::change(state, what, || {
        offline::nothing_waits(state)?;
        let options = options(running, state);
        let load = || {
            config::load(options.source.to_config(), &options.to_config(), &mut PeerIds::default())
                .map_err(|problems| anyhow!(Problem(problems.to_string())))
        };
        let loaded = load()?;
        let mut edits = Edits::read(state)?;
        let before = edits.text();
        apply(&mut edits, &loaded.compiled).map_err(failed)?;
        match load() {
            Ok(loaded) => Ok(loaded.compiled),
            Err(error) => {
                edits.write(before)?;
                Err(error)
            }
        }
    })
}

/// Gives a peer's person a new secret for their authenticator.
pub(super) fn set_up_confirmation(running: &Running, state: &Path, name: &str) -> anyhow::Result<SetUp> {
    admit(running, state)?;
    offline::change(state, &format!("peer confirm-setup {name}"), || {
        confirm::set_up_offline(state, name, &look(running, state)?).map_err(failed)
    })
}
