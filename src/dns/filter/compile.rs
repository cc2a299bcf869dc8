//! From lists to the table, or to an error that names the list.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{
    Compiled, Error, ListStatus,
    build::{Builder, Full, Rule},
    disk::{self, Out, Whole},
    key::Seed,
    parse::{self, Found, Reach},
    reason::Reason,
    source::{Stamp, list_error, open},
    table::Table,
};
use crate::{
    dns::{Config, List, ListSource},
    store,
};

/// Reads the lists and makes the table, in a file where it can be kept.
pub(super) fn compile(config: &Config, stamps: &mut [Option<Stamp>], kept: Option<&Path>) -> Result<Compiled, Error> {
    if let Some(kept) = kept {
        match compile_into(config, stamps, Some(kept)) {
            // No room, or a folder that is not ours: what filters now matters more than the next start.
            Err(Error::Sort(error)) => {
                let file = kept.display();
                tracing::warn!(%error, %file, "the table stays in memory, the next start reads the lists again");
            }
            done => return done,
        }
    }
    compile_into(config, stamps, None)
}

fn compile_into(config: &Config, stamps: &mut [Option<Stamp>], kept: Option<&Path>) -> Result<Compiled, Error> {
    let seed = Seed::random()?;
    let mut builder = Builder::new(seed, &config.state);
    let mut statuses = Vec::new();
    let mut taken = Vec::new();
    for (place, list) in config.lists.iter().enumerate().filter(|(_, list)| list.enabled) {
        let source = u16::try_from(place).map_err(|_| Error::TooMany)?;
        let (status, entries, stamp) = read_list(list, &config.state, source, &mut builder)?;
        statuses.push(status);
        stamps[place] = Some(stamp);
        taken.push((place, entries));
    }
    let key = key_of(config, stamps);
    let mut counts = vec![0; config.lists.len()];
    let made = || -> io::Result<_> {
        let mut out = match kept {
            Some(kept) => {
                kept.parent().map_or(Ok(()), store::folder)?;
                Out::file(kept, key)?
            }
            None => Out::memory(),
        };
        let (shards, sets) = builder.finish(&mut counts, &mut out)?;
        for (status, (place, entries)) in statuses.iter_mut().zip(taken) {
            status.names = counts[place];
            status.duplicates = entries - status.names;
        }
        let whole = statuses.iter().all(|status| status.problem.is_none());
        let octets = out.finish(if whole { Whole::Yes } else { Whole::No }, |out| {
            Table::write_places(&shards, out)?;
            disk::write_rest(out, seed, &sets, &statuses)
        })?;
        Ok((Table::new(octets, shards).ok_or_else(disk::damaged)?, sets))
    };
    let (table, sets) = made().map_err(Error::Sort)?;
    Ok(Compiled { key, seed, table, sets, statuses })
}

/// Says where the table is kept; names that stand in the configuration alone are not worth it.
pub(super) fn table_file(config: &Config) -> Option<PathBuf> {
    let from_files = config.lists.iter().any(|list| list.enabled && !matches!(list.source, ListSource::Inline(_)));
    (from_files && !config.state.as_os_str().is_empty()).then(|| config.state.join("lists").join("table"))
}

/// Tells one table from another by what they are made from.
pub(super) fn key_of(config: &Config, stamps: &[Option<Stamp>]) -> disk::Key {
    let mut digest = Sha256::new();
    for (list, stamp) in config.lists.iter().zip(stamps) {
        digest.update(format!("{:?}\n", (&list.name, list.action, stamp)));
    }
    digest.finalize().into()
}

/// Puts the names of a list into the table. Returns its status without the number of distinct names, and
/// how many entries were taken. One that is fetched never fails: it may be fetched better.
fn read_list(list: &List, state: &Path, source: u16, builder: &mut Builder) -> Result<(ListStatus, u64, Stamp), Error> {
    let mut status = ListStatus { name: list.name.clone(), ..ListStatus::default() };
    let mut reasons = BTreeMap::new();
    let mut entries = 0;
    let mut fits = true;
    let fetched = matches!(list.source, ListSource::Url(_));
    let opened = match open(list, state) {
        Ok(opened) => opened,
        Err(error) if fetched => {
            status.problem = Some(list_error(list, state, error.into()).to_string());
            return Ok((status, 0, Stamp::now(list, state)));
        }
        Err(error) => return Err(list_error(list, state, error.into())),
    };
    let read = parse::read(opened.reader, |_, _, found| {
        let rule = |sense: parse::Sense, reach| {
            let (action, important) = (sense.action(list.action), sense.is_important());
            Rule { source, action, reach, important, terms: 0 }
        };
        let (taken, names) = match found {
            Found::Name { name, reach, sense, terms } => (builder.add(name, rule(sense, reach), terms), 1),
            Found::Net { net, sense, terms } => (builder.add_net(net, rule(sense, Reach::Exact), terms), 1),
            Found::Pattern { expression, sense, terms } => {
                (builder.add_pattern(expression, rule(sense, Reach::Exact), terms), 0)
            }
            Found::Ignored(reason) => return *reasons.entry(reason).or_insert(0) += 1,
        };
        match taken {
            Ok(()) => {
                entries += names;
                status.patterns += 1 - names;
            }
            Err(Full::Special) => *reasons.entry(Reason::NoRoom).or_insert(0) += 1,
            Err(Full::Plain) => fits = false,
        }
    });
    if !fits {
        return Err(Error::TooMany);
    }
    match read {
        Ok(bytes) => status.bytes = bytes,
        Err(error) if fetched => status.problem = Some(list_error(list, state, error).to_string()),
        Err(error) => return Err(list_error(list, state, error)),
    }
    if Stamp::now(list, state) != opened.stamp {
        status.problem = Some("changed while it was read: the next reload reads it again".into());
    }
    if opened.stamp == Stamp::Nothing {
        status.problem = Some("not fetched yet".into());
    }
    status.ignored = reasons.values().sum();
    status.reasons = reasons.into_iter().map(|(reason, count)| (reason.text().to_owned(), count)).collect();
    Ok((status, entries, opened.stamp))
}
