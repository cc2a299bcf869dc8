//! Landlock: which files there are for this process.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, path_beneath_rules,
};

use super::{Folders, Force, Resolver};

/// Of the newest rules that we know; older kernels leave out what they do not have.
const KNOWN: ABI = ABI::V5;

/// What the libraries below us read: names of users, the time zone, and what the kernel says of the network.
const SYSTEM: [&str; 13] = [
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/ld.so.cache",
    "/usr/share/zoneinfo",
    "/usr/lib",
    "/lib",
    "/lib64",
    "/proc/self",
    "/proc/sys/net",
    "/dev/urandom",
];
/// What a C library reads to find names; DHCP clients put other files in their places.
const RESOLVER: [&str; 3] = ["/etc", "/run/systemd/resolve", "/run/resolvconf"];

pub(super) fn restrict(folders: &Folders) -> Force {
    match try_restrict(folders) {
        Ok(RulesetStatus::FullyEnforced) => Force::Full,
        Ok(RulesetStatus::PartiallyEnforced) => Force::Partly,
        Ok(RulesetStatus::NotEnforced) => Force::None("the kernel does not have it, or not switched on".into()),
        Err(error) => Force::None(error.to_string()),
    }
}

fn try_restrict(folders: &Folders) -> Result<RulesetStatus, RulesetError> {
    let all = AccessFs::from_all(KNOWN);
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = all & !BitFlags::from(AccessFs::Execute);
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(all)?.create()?;
    // What is not there is left out.
    let readable = path_beneath_rules(readable(folders), read);
    let state = path_beneath_rules(folders.written.iter().chain([&folders.state]), write);
    Ok(ruleset.add_rules(readable)?.add_rules(state)?.restrict_self()?.ruleset)
}

/// Every file and folder that may be read.
pub(super) fn readable(folders: &Folders) -> Vec<PathBuf> {
    let system = SYSTEM.iter().chain(match folders.resolver {
        Resolver::Ours => &[][..],
        Resolver::System => &RESOLVER[..],
    });
    let mut open: Vec<PathBuf> = system.map(PathBuf::from).collect();
    open.push(folders.state.clone());
    open.extend(folders.written.iter().cloned());
    open.extend(folders.files.iter().map(|file| folder(file)));
    // A link counts where it leads.
    let targets = folders.files.iter().filter_map(|file| std::fs::canonicalize(file).ok());
    open.extend(targets.map(|target| folder(&target)).collect::<Vec<_>>());
    open.extend(std::fs::canonicalize(&folders.state).ok());
    open.sort();
    open.dedup();
    open
}

/// The folder of a file; the file itself where that would be everything.
fn folder(file: &Path) -> PathBuf {
    if file.is_dir() {
        return file.to_owned();
    }
    match file.parent() {
        Some(parent) if parent != Path::new("/") && !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => file.to_owned(),
    }
}
