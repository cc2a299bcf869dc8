//! Shuts the process off from what it has no use for, once its ports are bound and before its first thread.
//!
//! Landlock leaves it the state folder, and to read the folders of the files that the configuration names; seccomp
//! takes away the system calls by which whoever took the process over would go on: other programs, raw sockets, other
//! processes, the kernel itself. Both hold for every thread that is started later, and cannot be lifted.

mod calls;
mod files;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// It is in force, as far as the kernel has it.
    On,
    /// The owner does not want it.
    Off,
}

/// `node.landlock` and `node.seccomp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switches {
    /// The file sandbox.
    pub landlock: Switch,
    /// The filter of system calls.
    pub seccomp: Switch,
}

/// Who turns names into addresses for this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolver {
    /// The DNS plane.
    Ours,
    /// The C library, which reads files of the system.
    System,
}

/// What stays open.
#[derive(Clone, Debug)]
pub struct Folders {
    /// Read and written.
    pub state: PathBuf,
    /// Read, and whatever lies beside them: an editor puts another file in the place of one.
    pub files: Vec<PathBuf>,
    /// Read and written besides the state.
    pub written: Vec<PathBuf>,
    /// Whether files of the system are read besides.
    pub resolver: Resolver,
}

/// How much of a thing is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Force {
    Full,
    /// As far as this kernel has it.
    Partly,
    None(String),
}

/// What is in force from now on; stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    files: Force,
    calls: Force,
}

impl InForce {
    /// Files outside cannot be read.
    pub fn shuts_files(&self) -> bool {
        !matches!(self.files, Force::None(_))
    }

    /// System calls are filtered.
    pub fn filters_calls(&self) -> bool {
        !matches!(self.calls, Force::None(_))
    }
}

impl fmt::Display for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut one = |name: &str, force: &Force| match force {
            Force::Full => write!(f, "{name}"),
            Force::Partly => write!(f, "{name} (as far as this kernel has it)"),
            Force::None(why) => write!(f, "no {name} ({why})"),
        };
        one("landlock", &self.files)?;
        f.write_str(", ")?;
        let mut one = |name: &str, force: &Force| match force {
            Force::Full | Force::Partly => write!(f, "{name}"),
            Force::None(why) => write!(f, "no {name} ({why})"),
        };
        one("seccomp", &self.calls)
    }
}

/// The folders that may be read, once that is limited.
static OPEN: OnceLock<Vec<PathBuf>> = OnceLock::new();

/// Shuts the calling thread, and whatever it starts, off for good. What the kernel does not have is left out and named.
pub fn enter(switches: Switches, folders: &Folders) -> InForce {
    let files = match switches.landlock {
        Switch::On => files::restrict(folders),
        Switch::Off => Force::None("node.landlock = false".into()),
    };
    let calls = match switches.seccomp {
        Switch::On => calls::restrict(),
        Switch::Off => Force::None("node.seccomp = false".into()),
    };
    InForce { files, calls }
}

/// Remembers, for the whole process, what [`enter`] left open.
pub fn remember(in_force: &InForce, folders: &Folders) {
    if in_force.shuts_files() {
        let _ = OPEN.set(files::readable(folders));
    }
}

/// Says whether the sandbox, if there is one, lets this process read a file.
pub fn admits(path: &Path) -> bool {
    // A link counts where it leads.
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    OPEN.get().is_none_or(|open| open.iter().any(|folder| real.starts_with(folder)))
}

#[cfg(test)]
mod tests {
    use std::{fs, io, process::Command};

    use super::*;

    /// Does something in a thread of its own that is shut off: the others go on as they are.
    fn shut_off<T: Send + 'static>(folders: Folders, act: impl FnOnce(&InForce) -> T + Send + 'static) -> T {
        let thread = std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            let on = Switches { landlock: Switch::On, seccomp: Switch::On };
            act(&enter(on, &folders))
        });
        thread.join().unwrap()
    }

    fn folders(state: &Path, file: &Path) -> Folders {
        Folders { state: state.to_owned(), files: vec![file.to_owned()], written: Vec::new(), resolver: Resolver::Ours }
    }

    #[test]
    fn what_nobody_named_cannot_be_read_and_the_state_can_be_written() {
        let [state, named, elsewhere] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let file = named.path().join("ads.hosts");
        fs::write(&file, "0.0.0.0 ads.example\n").unwrap();
        let outside = elsewhere.path().join("everybody-reads-it");
        fs::write(&outside, "secret").unwrap();
        let given = folders(state.path(), &file);
        let (inside, beside) = (state.path().join("new"), named.path().join("beside"));

        let (is_shut, read, wrote, written_beside, read_outside) = shut_off(given, move |in_force| {
            (
                in_force.shuts_files(),
                fs::read(&file),
                fs::write(&inside, "x").and_then(|()| fs::rename(&inside, inside.with_extension("old"))),
                fs::write(&beside, "x"),
                fs::read(&outside),
            )
        });

        if !is_shut {
            return eprintln!("\nSKIPPED: this kernel has no Landlock");
        }
        assert!(read.is_ok() && wrote.is_ok(), "{read:?} {wrote:?}");
        assert_eq!(written_beside.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(read_outside.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn no_program_is_started_and_no_raw_socket_opened_and_ordinary_ones_are() {
        use socket2::{Domain, Protocol, Socket, Type};

        let state = tempfile::tempdir().unwrap();
        let given = folders(state.path(), &state.path().join("x"));
        let raw = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).map(drop);
        let packet = || Socket::new(Domain::PACKET, Type::DGRAM, None).map(drop);
        let before = (Command::new("/bin/true").status(), raw(), packet());

        let (is_shut, after, ordinary) = shut_off(given, move |in_force| {
            let ordinary = std::net::TcpListener::bind("127.0.0.1:0")
                .and_then(|listener| std::net::TcpStream::connect(listener.local_addr()?).map(drop));
            let netlink = crate::onlink::kernel().map(drop);
            (in_force.filters_calls(), (Command::new("/bin/true").status(), raw(), packet()), ordinary.and(netlink))
        });

        if !is_shut {
            return eprintln!("\nSKIPPED: this kernel or processor has no seccomp filters");
        }
        assert!(before.0.is_ok());
        assert_eq!(after.0.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        if crate::privilege::is_root() {
            assert!(before.1.is_ok() && before.2.is_ok(), "{before:?}");
        }
        for refused in [after.1, after.2] {
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        }
        ordinary.unwrap();
    }
}
