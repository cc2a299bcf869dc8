//! Privileges: what is kept after the ports are bound, which is nothing.
//!
//! The order is binding first, then [`drop`], and only then threads: capabilities and some of the switches
//! belong to a thread, so one that was started earlier would keep them.

use std::{
    fmt, fs, io,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    },
    path::Path,
};

use nix::unistd::{self, Gid, Uid};
use rustix::{
    process::{DumpableBehavior, set_dumpable_behavior},
    thread::{self, CapabilitySet, CapabilitySets},
};

/// The user that the process becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    name: String,
    uid: Uid,
    gid: Gid,
}

impl User {
    /// Its number.
    pub fn uid(&self) -> u32 {
        self.uid.as_raw()
    }

    /// The number of its group.
    pub fn gid(&self) -> u32 {
        self.gid.as_raw()
    }
}

/// Why the process does not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Root, and nobody to become.
    #[error(
        "started as root without a user to become: set `node.user`, give `--user NAME`, or start as an ordinary user"
    )]
    Root,
    /// The user is not there.
    #[error("`node.user` = \"{0}\": there is no such user on this system")]
    Unknown(String),
    /// The user is root under whatever name.
    #[error("`node.user` = \"{0}\" is root itself: name an ordinary user")]
    StillRoot(String),
    /// A thread would have kept what is dropped here.
    #[error("privileges cannot be dropped: {0} threads are running already")]
    Threads(usize),
    /// The kernel refused.
    #[error("privileges cannot be dropped: {step}: {error}")]
    Refused {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
}

/// What holds from now on; stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// The user that the process runs as.
    pub user: String,
    /// Its number.
    pub uid: u32,
    /// Capabilities that are left, in words.
    pub capabilities: String,
    /// No program started from here can gain anything.
    pub no_new_privileges: bool,
}

impl fmt::Display for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {} ({}), capabilities: {}", self.user, self.uid, self.capabilities)?;
        if self.no_new_privileges {
            f.write_str(", no new privileges")?;
        }
        Ok(())
    }
}

/// Says whether the process is root.
pub fn is_root() -> bool {
    unistd::geteuid().is_root()
}

/// Finds whom to become: nobody if the process is not root. Root must have somebody.
pub fn user(name: Option<&str>) -> Result<Option<User>, Error> {
    if !is_root() {
        return Ok(None);
    }
    let name = name.ok_or(Error::Root)?;
    let found = unistd::User::from_name(name).ok().flatten().ok_or_else(|| Error::Unknown(name.to_owned()))?;
    if found.uid.is_root() {
        return Err(Error::StillRoot(name.to_owned()));
    }
    Ok(Some(User { name: found.name, uid: found.uid, gid: found.gid }))
}

/// Gives what root left under a name, with everything below it, to a user.
///
/// Only what belongs to root and has one name is given, and no link is followed: whoever can write into the
/// folder could otherwise have a file of the system handed over.
pub fn give(path: &Path, user: &User) -> io::Result<()> {
    give_to(path, user.uid.as_raw(), user.gid.as_raw())
}

/// Gives a folder itself to a user, and nothing that lies in it.
pub fn give_folder(path: &Path, user: &User) -> io::Result<()> {
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)?;
    fchown(&file, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
}

/// Lets a user read a file and change nothing, and nobody else do either.
pub fn share(file: &fs::File, user: &User) -> io::Result<()> {
    fchown(file, None, Some(user.gid.as_raw()))?;
    file.set_permissions(fs::Permissions::from_mode(0o640))
}

fn give_to(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    const FLAGS: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = match fs::OpenOptions::new().read(true).custom_flags(FLAGS).open(path) {
        Ok(file) => file,
        // A symbolic link, or a socket.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO)) => return Ok(()),
        Err(error) => return Err(error),
    };
    let found = file.metadata()?;
    if found.is_dir() {
        // The name in /proc is this very folder, whatever the path has become meanwhile.
        for entry in fs::read_dir(format!("/proc/self/fd/{}", file.as_raw_fd()))? {
            give_to(&entry?.path(), uid, gid)?;
        }
    } else if !found.is_file() || found.nlink() != 1 {
        return Ok(());
    }
    if found.uid() == 0 { fchown(&file, Some(uid), Some(gid)) } else { Ok(()) }
}

/// Lets root act as the owner of a folder from here on, so that what it writes there stays readable.
pub fn act_as_owner(path: &Path) -> io::Result<()> {
    std::mem::forget(Acting::become_owner(path)?);
    Ok(())
}

/// Does something in a folder as its owner: root would follow wherever the owner's links lead.
///
/// The whole process acts as the owner meanwhile. A folder that is not there has no owner.
pub fn as_owner<T>(path: &Path, work: impl FnOnce() -> T) -> io::Result<T> {
    let _acting = match Acting::become_owner(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        acting => acting?,
    };
    Ok(work())
}

/// Root acts as somebody else until this is dropped.
struct Acting {
    groups: Vec<Gid>,
}

impl Acting {
    fn become_owner(path: &Path) -> io::Result<Option<Self>> {
        if !is_root() {
            return Ok(None);
        }
        let owner = fs::metadata(path)?;
        if owner.uid() == 0 {
            return Ok(None);
        }
        let acting = Self { groups: unistd::getgroups()? };
        let group = Gid::from_raw(owner.gid());
        unistd::setgroups(&[group])?;
        unistd::setegid(group)?;
        unistd::seteuid(Uid::from_raw(owner.uid()))?;
        Ok(Some(acting))
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        let root = Uid::from_raw(0);
        let back = unistd::seteuid(root).and_then(|()| unistd::setegid(Gid::from_raw(0)));
        back.and_then(|()| unistd::setgroups(&self.groups)).expect("root stays the saved user, and can be had back");
    }
}

/// Becomes `user` for good and drops every capability.
///
/// Without a user (the process is not root) capabilities that were handed to it for binding are dropped all
/// the same.
pub fn drop(user: Option<&User>) -> Result<InForce, Error> {
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        return Err(Error::Threads(threads));
    }
    if let Some(user) = user {
        // The bounding set needs CAP_SETPCAP, so it goes first.
        for capability in CapabilitySet::all().iter() {
            match thread::remove_capability_from_bounding_set(capability) {
                // A capability that this kernel does not know.
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                Err(error) => return Err(refused("bounding set")(error.into())),
            }
        }
        let name = std::ffi::CString::new(user.name.as_str()).map_err(|error| refused("user")(error.into()))?;
        // The groups of the user and none of root's.
        unistd::initgroups(&name, user.gid).map_err(|error| refused("setgroups")(error.into()))?;
        unistd::setresgid(user.gid, user.gid, user.gid).map_err(|error| refused("setgid")(error.into()))?;
        unistd::setresuid(user.uid, user.uid, user.uid).map_err(|error| refused("setuid")(error.into()))?;
        if unistd::setuid(Uid::from_raw(0)).is_ok() {
            return Err(refused("setuid")(io::Error::other("root can be had back")));
        }
    } else if is_root() {
        return Err(Error::Root);
    }
    renounce().map_err(refused("capabilities"))?;
    // Keys are in memory: no core files, and no other process of this user may look.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| refused("dumpable")(error.into()))?;
    Ok(in_force())
}

/// Gives up every capability of this thread, and whatever a program that it starts could bring back.
pub fn renounce() -> io::Result<()> {
    let _ = thread::clear_ambient_capability_set();
    let none = CapabilitySet::empty();
    thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(thread::set_no_new_privs(true)?)
}

fn refused(step: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| Error::Refused { step, error }
}

fn in_force() -> InForce {
    let uid = unistd::geteuid();
    let user = unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    let capabilities = match thread::capabilities(None) {
        Ok(left) if left.permitted.is_empty() => "none".to_owned(),
        Ok(left) => left.permitted.iter_names().map(|(name, _)| name.to_lowercase()).collect::<Vec<_>>().join(" "),
        Err(error) => format!("unknown ({error})"),
    };
    InForce { user, uid: uid.as_raw(), capabilities, no_new_privileges: thread::no_new_privs().unwrap_or(false) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_must_have_somebody_to_become() {
        if !is_root() {
            assert_eq!(user(Some("nobody")).unwrap(), None);
            return;
        }

        assert!(matches!(user(None), Err(Error::Root)));
        assert!(matches!(user(Some("root")), Err(Error::StillRoot(_))));
        assert!(matches!(user(Some("no-such-user-here")), Err(Error::Unknown(_))));
    }

    #[test]
    fn nothing_is_dropped_while_threads_run() {
        // The test harness has threads of its own.
        let gone = std::thread::spawn(|| std::thread::sleep(std::time::Duration::from_millis(200)));

        assert!(matches!(drop(None), Err(Error::Threads(_))));

        gone.join().unwrap();
    }

    #[test]
    fn links_in_a_folder_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::NamedTempFile::new().unwrap();
        let inside = folder.path().join("state");
        fs::create_dir(&inside).unwrap();
        fs::write(inside.join("plain"), "x").unwrap();
        fs::write(inside.join("twice"), "x").unwrap();
        fs::hard_link(inside.join("twice"), folder.path().join("other-name")).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), inside.join("link")).unwrap();
        let uid_of = |path: &Path| fs::metadata(path).unwrap().uid();
        let us = uid_of(elsewhere.path());

        give_to(&inside, 65534, 65534).unwrap();

        assert_eq!(uid_of(elsewhere.path()), us);
        assert_eq!(uid_of(&inside.join("twice")), us);
        if us == 0 {
            assert_eq!(uid_of(&inside.join("plain")), 65534);
            assert_eq!(uid_of(&inside), 65534);
        }
    }
}
