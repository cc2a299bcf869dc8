//! What the state lies on: an SD card, memory, a file system that is full or cannot be written.

use std::path::{Path, PathBuf};

use super::{Finding, Patient};

/// Lists, certificates and history need about this much to go on.
const LEAST_FREE: u64 = 256 << 20;

pub(super) fn findings(patient: &Patient<'_>) -> Vec<Finding> {
    let state = match (patient.status, patient.config) {
        (Some(status), _) => status.state.clone(),
        (None, Some(config)) => config.node.state.clone(),
        _ => return Vec::new(),
    };
    let mut found = Vec::new();
    let table = patient.machine.text("proc/self/mountinfo").unwrap_or_default();
    if let Some(mount) = Mount::of(&table, &state) {
        found.push(mount.judge(&state));
    }
    if let Ok(room) = rustix::fs::statvfs(nearest(&state)) {
        found.push(free(&state, room.f_bavail.saturating_mul(room.f_frsize)));
    }
    found
}

fn free(state: &Path, bytes: u64) -> Finding {
    let what = format!("{} MiB are free where {} lies", bytes >> 20, state.display());
    match bytes < LEAST_FREE {
        true => Finding::bad("storage", what)
            .because(
                "lists are not renewed and changes are refused when there is no room to write them beside the old ones",
            )
            .type_in("sudo apt clean; sudo journalctl --vacuum-size=50M"),
        false => Finding::good("storage", what),
    }
}

/// The folder itself, or what it will be made in.
fn nearest(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/")).to_owned()
}

/// A line of `/proc/self/mountinfo`.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    options: String,
    kind: String,
    device: String,
}

impl Mount {
    /// Returns the mount that a path lies on: the one with the longest point, the last of them.
    fn of(table: &str, path: &Path) -> Option<Self> {
        let mounts = table.lines().filter_map(Self::parse).filter(|mount| path.starts_with(&mount.point));
        mounts.max_by_key(|mount| mount.point.components().count())
    }

    /// proc(5): number, parent, device, root, point, options, fields, "-", kind, source, options.
    fn parse(line: &str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(4);
        let (point, options) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        let (kind, device) = (after.next()?, after.next()?);
        Some(Self {
            point: point.replace("\\040", " ").into(),
            options: options.into(),
            kind: kind.into(),
            device: device.into(),
        })
    }

    fn judge(&self, state: &Path) -> Finding {
        let what = format!("{} lies on {} ({})", state.display(), self.device, self.kind);
        if self.options.split(',').any(|option| option == "ro") {
            return Finding::bad("storage", format!("{what}, which cannot be written"))
                .because("nothing that is changed, fetched or ordered is kept; a worn SD card looks like this")
                .type_in("sudo dmesg | grep -iE 'mmc|ext4|remount'    # then a new card: runbook restore");
        }
        match self.kind.as_str() {
            "tmpfs" | "ramfs" => Finding::bad("storage", format!("{what}: in memory"))
                .because("keys of the gate, certificates and peers are gone after the next start")
                .type_in("name a folder on a disk: node.state"),
            "overlay" => Finding::odd("storage", format!("{what}: a layer of a container"))
                .because("keys of the gate, certificates and peers are gone with the container")
                .type_in("mount a volume there: -v hearthgate:/var/lib/hearthgate"),
            "nfs" | "nfs4" | "cifs" => Finding::odd("storage", format!("{what}: on another box"))
                .because("names in the house depend on that box then, and locks of files on its server")
                .type_in("name a folder on a disk of this box: node.state"),
            _ if self.device.starts_with("/dev/mmcblk") => Finding::odd("storage", format!("{what}: an SD card or eMMC"))
                .because("cards wear out by writing: hearthgate writes little, the journal and swap write more")
                .type_in(
                    "echo -e '[Journal]\\nStorage=volatile' | sudo tee /etc/systemd/journald.conf.d/volatile.conf    # and keep a copy of the state",
                ),
            _ => Finding::good("storage", what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Mark;

    const TABLE: &str = "\
22 1 179:2 / / rw,noatime shared:1 - ext4 /dev/mmcblk0p2 rw
23 22 0:5 / /dev rw - devtmpfs udev rw
31 22 0:40 / /var/lib rw - tmpfs tmpfs rw
32 22 8:1 / /mnt/a\\040b ro - ext4 /dev/sda1 rw";

    fn mark(path: &str) -> Mark {
        Mount::of(TABLE, Path::new(path)).unwrap().judge(Path::new(path)).mark
    }

    #[test]
    fn the_innermost_mount_counts() {
        assert_eq!(mark("/srv/hearthgate"), Mark::Odd);
        assert_eq!(mark("/var/lib/hearthgate"), Mark::Bad);
        assert_eq!(mark("/mnt/a b/state"), Mark::Bad);
        assert_eq!(Mount::of(TABLE, Path::new("/mnt/a b/state")).unwrap().device, "/dev/sda1");
    }

    #[test]
    fn a_full_disk_is_bad() {
        assert_eq!(free(Path::new("/state"), 10 << 20).mark, Mark::Bad);
        assert_eq!(free(Path::new("/state"), 10 << 30).mark, Mark::Good);
    }
}
