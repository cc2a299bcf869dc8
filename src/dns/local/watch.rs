//! Notices when files change, by inotify on the folders that they are in: so that a file which is replaced by
//! another one is noticed as well.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::{net::unix::pipe::Receiver, time::sleep};

/// Folders that are watched.
#[derive(Debug)]
pub(crate) struct Watch(Option<Receiver>);

/// Changes come in swarms; this much later the files are looked at once.
const SETTLE: Duration = Duration::from_millis(200);

/// They are looked at after this time anyway: a folder may not have been there, and leases come to their end.
const AT_LEAST_EVERY: Duration = Duration::from_secs(60);

/// What was cut short by whoever was writing is read again so much later.
const AGAIN: Duration = Duration::from_secs(3);

impl Watch {
    /// Watches the folders of these files; without inotify they are looked at from time to time only.
    pub(crate) fn new<'a>(files: impl Iterator<Item = &'a PathBuf>) -> Self {
        let folders: BTreeSet<PathBuf> = files
            .flat_map(|file| [Some(file.clone()), file.canonicalize().ok()])
            .flatten()
            .filter_map(|file| file.parent().map(Path::to_owned))
            .collect();
        if folders.is_empty() {
            return Self(None);
        }
        let watched = watch(&folders);
        if let Err(error) = &watched {
            tracing::warn!(%error, "changes of files are noticed after {AT_LEAST_EVERY:?} only");
        }
        Self(watched.ok())
    }

    /// Returns when a file may have changed.
    pub(crate) async fn changed(&self) {
        let told = async {
            let Some(events) = &self.0 else { return std::future::pending().await };
            if drained(events).await.is_err() {
                return std::future::pending().await;
            }
            sleep(SETTLE).await;
            // The rest of the swarm.
            _ = drain(events);
        };
        _ = tokio::time::timeout(AT_LEAST_EVERY, told).await;
    }

    /// Returns when what was being written should be whole.
    pub(crate) async fn dry() {
        sleep(AGAIN).await;
    }
}

fn watch(folders: &BTreeSet<PathBuf>) -> io::Result<Receiver> {
    let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let changes =
        WatchFlags::CLOSE_WRITE | WatchFlags::MODIFY | WatchFlags::MOVED_TO | WatchFlags::CREATE | WatchFlags::DELETE;
    for folder in folders {
        if let Err(error) = inotify::add_watch(&fd, folder, changes) {
            tracing::warn!(%error, folder = %folder.display(), "changes in this folder are noticed late");
        }
    }
    // To the runtime it is a descriptor that can be read, as a pipe is.
    Receiver::from_owned_fd_unchecked(fd)
}

/// Waits for events and takes them; that there were some is enough.
async fn drained(events: &Receiver) -> io::Result<()> {
    events.readable().await?;
    drain(events)
}

fn drain(events: &Receiver) -> io::Result<()> {
    let mut buffer = [0_u8; 8192];
    loop {
        match events.try_read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_is_noticed_however_it_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("leases");
        let watch = Watch::new([&file].into_iter());
        let noticed = async || tokio::time::timeout(Duration::from_secs(20), watch.changed()).await.is_ok();

        std::fs::write(&file, "one").unwrap();
        assert!(noticed().await, "it appears");
        std::fs::write(&file, "two").unwrap();
        assert!(noticed().await, "it is written to");
        let other = folder.path().join("other");
        std::fs::write(&other, "three").unwrap();
        assert!(noticed().await, "something beside it");
        std::fs::rename(&other, &file).unwrap();
        assert!(noticed().await, "it is replaced");
    }
}
