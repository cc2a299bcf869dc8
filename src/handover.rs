//! Listeners to the next process: what is open passes from one process to the other while both run, so nobody who
//! knocks finds the door gone.
//!
//! The one that runs listens on a Unix socket in the state folder. The next one asks there; it gets one line about the
//! one before it, and after that every descriptor that only one process can have: listeners, datagram sockets, the
//! device of the tunnel, the lock of the state folder. Both hold them now, and the kernel keeps one queue for both.
//! The next one builds all it needs and says `ready`; the first one lets go and says `yours`; the next one begins, and
//! says `mine` when it works. Until `ready` nothing has happened to the first: if the next one fails, it goes on. Until
//! `mine` it still serves what two can serve, and does not end as if all were well.

use std::{
    io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

/// The words of this file's first paragraph; another number is another language.
const PROTOCOL: u32 = 1;
/// Descriptors of one message; the kernel takes 253.
const AT_ONCE: usize = 64;
/// Descriptors that one process may give another.
const MOST: usize = 4096;
/// The line about the one before.
const LINE: u64 = 4096;
/// How long either side may take for a step that needs no work.
const STEP: Duration = Duration::from_secs(10);
/// How long the next process may take to get ready: it reads lists and certificates.
const PREPARATION: Duration = Duration::from_secs(60);
/// How long the first one may take to let go: it ends what must not be done by two.
const RELEASE: Duration = Duration::from_secs(30);

/// How long the next process may take to begin once all is its own.
const BEGINNING: Duration = Duration::from_secs(30);
/// Behind the version of a process that will say `mine`.
const CONFIRMS: &str = " confirms";

/// What the one that runs says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Testament {
    /// Its version.
    pub version: String,
    /// The service manager's socket, as the environment named it.
    pub notify: Option<String>,
    /// How soon the service manager must hear something, in microseconds.
    pub watchdog: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    protocol: u32,
    descriptors: usize,
    #[serde(flatten)]
    testament: Testament,
}

/// Where the socket is in a state folder.
pub fn socket(state: &Path) -> PathBuf {
    state.join("handover.sock")
}

/// Makes the socket, for whoever comes next. The caller holds the lock of the state folder, so what is there is left
/// over.
pub fn bind(state: &Path) -> io::Result<UnixListener> {
    let path = socket(state);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The next process, ready to begin.
#[derive(Debug)]
pub struct Successor {
    stream: UnixStream,
    /// Its version.
    pub version: String,
    /// It will say when it works.
    confirms: bool,
}

/// Gives the descriptors to a process that asked, and waits until it is ready. Blocks.
pub fn give(stream: UnixStream, testament: Testament, descriptors: &[BorrowedFd<'_>]) -> io::Result<Successor> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(STEP))?;
    stream.set_read_timeout(Some(PREPARATION))?;
    let line = Line { protocol: PROTOCOL, descriptors: descriptors.len(), testament };
    let mut text = serde_json::to_vec(&line).map_err(io::Error::other)?;
    text.push(b'\n');
    (&stream).write_all(&text)?;
    for some in descriptors.chunks(AT_ONCE) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(some)) {
            return Err(io::Error::other("no room for so many descriptors"));
        }
        sendmsg(&stream, &[IoSlice::new(b".")], &mut control, SendFlags::NOSIGNAL)?;
    }
    let said = read_line(&stream)?;
    let version = said.strip_prefix("ready ").ok_or_else(|| io::Error::other(format!("it said \"{said}\"")))?;
    let confirms = version.ends_with(CONFIRMS);
    let version = version.trim_end_matches(CONFIRMS).to_owned();
    Ok(Successor { stream, version, confirms })
}

impl Successor {
    /// Tells it to begin, and waits until it works: from then on all of it is its own. Blocks.
    pub fn begin(self) -> io::Result<()> {
        (&self.stream).write_all(b"yours\n")?;
        if !self.confirms {
            return Ok(());
        }
        self.stream.set_read_timeout(Some(BEGINNING))?;
        match read_line(&self.stream)?.as_str() {
            "mine" => Ok(()),
            other => Err(io::Error::other(format!("it said \"{other}\""))),
        }
    }
}

/// What a process gets from the one before it.
#[derive(Debug)]
pub struct Inheritance {
    /// About the one before.
    pub testament: Testament,
    /// What it gave, in its order.
    pub descriptors: Vec<OwnedFd>,
    /// The one before, which still works.
    pub predecessor: Predecessor,
}

/// The process that still works.
#[derive(Debug)]
pub struct Predecessor(UnixStream);

/// Asks the process that runs on this state for all that it has open; `None` if nobody is there. Blocks.
pub fn take(state: &Path) -> io::Result<Option<Inheritance>> {
    let stream = match UnixStream::connect(socket(state)) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(STEP))?;
    stream.set_write_timeout(Some(STEP))?;
    let text = read_line(&stream)?;
    let line: Line = serde_json::from_str(&text).map_err(io::Error::other)?;
    if line.protocol != PROTOCOL || line.descriptors > MOST {
        return Err(io::Error::other(format!("it speaks another language: {text}")));
    }
    let mut descriptors = Vec::new();
    while descriptors.len() < line.descriptors {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let got = recvmsg(&stream, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let before = descriptors.len();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = message {
                descriptors.extend(some);
            }
        }
        // The kernel leaves out what this process may not open any more.
        if got.bytes == 0 || descriptors.len() == before {
            return Err(io::Error::other("not all that was promised could be opened here"));
        }
    }
    Ok(Some(Inheritance { testament: line.testament, descriptors, predecessor: Predecessor(stream) }))
}

impl Predecessor {
    /// Says that everything is ready, and waits until the one before has let go. Blocks.
    pub fn release(self) -> io::Result<Promise> {
        self.0.set_read_timeout(Some(RELEASE))?;
        let said = format!("ready {}{CONFIRMS}\n", env!("CARGO_PKG_VERSION"));
        (&self.0).write_all(said.as_bytes())?;
        match read_line(&self.0)?.as_str() {
            "yours" => Ok(Promise(self.0)),
            other => Err(io::Error::other(format!("it said \"{other}\""))),
        }
    }
}

/// What is owed to the one before: to work. Dropped unfulfilled, it is told that nobody does.
#[derive(Debug)]
#[must_use]
pub struct Promise(UnixStream);

impl Promise {
    /// Says that this process works.
    pub fn fulfil(self) -> io::Result<()> {
        (&self.0).write_all(b"mine\n")
    }
}

/// Reads one line and not a byte more: what follows may have descriptors with it.
fn read_line(stream: &UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    let mut one_by_one = BufReader::with_capacity(1, stream).take(LINE);
    one_by_one.read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    String::from_utf8(line).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsFd};

    use super::*;

    fn testament() -> Testament {
        Testament { version: "0.0.1".into(), notify: Some("/run/notify".into()), watchdog: Some(7) }
    }

    #[test]
    fn what_is_open_passes_to_the_next_process_and_both_have_it() {
        let state = tempfile::tempdir().unwrap();
        let listener = bind(state.path()).unwrap();
        listener.set_nonblocking(false).unwrap();
        let sockets: Vec<UdpSocket> = (0..150).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let given: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();

        let inherited = std::thread::scope(|scope| {
            let giving =
                scope.spawn(|| give(listener.accept().unwrap().0, testament(), &given).unwrap().begin().unwrap());
            let inherited = take(state.path()).unwrap().unwrap();
            inherited.predecessor.release().unwrap().fulfil().unwrap();
            giving.join().unwrap();
            (inherited.testament, inherited.descriptors)
        });

        let (said, descriptors) = inherited;
        assert_eq!(said, testament());
        let addresses = descriptors.into_iter().map(|one| UdpSocket::from(one).local_addr().unwrap());
        assert!(addresses.eq(sockets.iter().map(|one| one.local_addr().unwrap())));
    }

    #[test]
    fn where_nobody_runs_nothing_is_inherited() {
        let state = tempfile::tempdir().unwrap();
        assert!(take(state.path()).unwrap().is_none());
        drop(bind(state.path()).unwrap());

        assert!(take(state.path()).unwrap().is_none());
    }

    #[test]
    fn a_next_process_that_fails_is_told_of_and_harms_nobody() {
        let state = tempfile::tempdir().unwrap();
        let listener = bind(state.path()).unwrap();
        listener.set_nonblocking(false).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();

        let failed = std::thread::scope(|scope| {
            let giving = scope.spawn(|| give(listener.accept().unwrap().0, testament(), &[socket.as_fd()]));
            drop(take(state.path()).unwrap());
            giving.join().unwrap()
        });

        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        socket.send_to(b"still here", socket.local_addr().unwrap()).unwrap();
        let mut heard = [0; 16];
        assert_eq!(socket.recv(&mut heard).unwrap(), 10);
    }

    #[test]
    fn a_next_process_that_dies_before_it_works_is_noticed() {
        let state = tempfile::tempdir().unwrap();
        let listener = bind(state.path()).unwrap();
        listener.set_nonblocking(false).unwrap();

        let begun = std::thread::scope(|scope| {
            let giving = scope.spawn(|| give(listener.accept().unwrap().0, testament(), &[]).unwrap().begin());
            let inherited = take(state.path()).unwrap().unwrap();
            drop(inherited.predecessor.release().unwrap());
            giving.join().unwrap()
        });

        assert_eq!(begun.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_next_process_of_before_that_says_no_more_than_ready_is_believed() {
        let state = tempfile::tempdir().unwrap();
        let listener = bind(state.path()).unwrap();
        listener.set_nonblocking(false).unwrap();

        let (version, begun) = std::thread::scope(|scope| {
            let giving = scope.spawn(|| {
                let successor = give(listener.accept().unwrap().0, testament(), &[]).unwrap();
                (successor.version.clone(), successor.begin())
            });
            let Predecessor(stream) = take(state.path()).unwrap().unwrap().predecessor;
            (&stream).write_all(b"ready 0.0.1\n").unwrap();
            assert_eq!(read_line(&stream).unwrap(), "yours");
            drop(stream);
            giving.join().unwrap()
        });

        assert_eq!(version, "0.0.1");
        begun.unwrap();
    }

    #[test]
    fn nonsense_is_no_inheritance() {
        for said in [&b""[..], b"hello\n", b"{\"protocol\":2,\"descriptors\":0,\"version\":\"9\"}\n", &[b'x'; 5000]] {
            let state = tempfile::tempdir().unwrap();
            let listener = bind(state.path()).unwrap();
            listener.set_nonblocking(false).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| listener.accept().unwrap().0.write_all(said));

                assert!(take(state.path()).is_err());
            });
        }
    }
}
