//! A backup on the box that is to be as the other one was.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};

use super::look;
use crate::{
    app::{control, lock, state as claim},
    audit::Audit,
    backup::{
        Checked,
        restore::{self, BEFORE, Place},
    },
    privilege, store,
};

/// The user of the packages, where the configuration names none.
const USER: &str = "hearthgate";

/// What was done.
#[derive(Debug)]
pub(crate) struct Restored {
    /// What was there before lies here.
    pub(crate) before: Option<PathBuf>,
    /// The configuration is in its place all the same.
    pub(crate) problems: Option<String>,
}

/// Puts a backup in its place; `replace` lets it take the place of what is there.
pub(crate) fn restore(checked: &Checked, place: &Place, replace: bool) -> anyhow::Result<Restored> {
    let state = &place.state;
    let there = restore::in_the_way(checked, place)?;
    if let (Some(first), false) = (there.first(), replace) {
        let more = if there.len() > 1 { format!(" and {} more", there.len() - 1) } else { String::new() };
        bail!(
            "{}{more} would be replaced: say --force, or name other places with --state and --config",
            first.display()
        );
    }
    store::folder(state).with_context(|| format!("state folder {}", state.display()))?;
    let lock = privilege::as_owner(state, || lock::take(state))?.map_err(|error| match error {
        lock::Error::Held { .. } => anyhow!("{error}: stop it first"),
        lock::Error::Io { .. } => anyhow!("{error}"),
    })?;
    // Files of the configuration belong to whoever calls this; those of the state to the folder's owner.
    let staged = privilege::as_owner(state, || restore::stage(checked, place))??;
    let read = staged.file().map(|file| look(file, &staged.state()));
    let user = match &read {
        Some(Ok(loaded)) => loaded.compiled.node.user.clone(),
        _ => None,
    };
    let user = privilege::user(user.as_deref()).or_else(|_| privilege::user(Some(USER))).ok().flatten();
    let share = |file: &std::fs::File| user.as_ref().map_or(Ok(()), |user| privilege::share(file, user));
    staged.commit(share)?;
    give(state, user.as_ref())?;
    drop(lock);
    let author = control::author(nix::unistd::getuid().as_raw());
    privilege::as_owner(state, || Audit::new(state).record(&author, "restore", "done, for the next start"))?;
    let before = Some(state.join(BEFORE)).filter(|before| before.exists());
    Ok(Restored { before, problems: read.and_then(Result::err).map(|problems| problems.to_string()) })
}

/// Root gives everything that it wrote to whom the edge runs as.
fn give(state: &Path, user: Option<&privilege::User>) -> anyhow::Result<()> {
    claim::claim(state, user)?;
    Ok(())
}
