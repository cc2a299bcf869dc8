//! `[history]`: what is kept of what happened.

use std::time::Duration;

use crate::{
    config::{
        file::Table,
        problems::{At, Wrong},
        value,
    },
    history::{Config, Privacy, Storage},
};

/// Bytes below which a day would hardly fit.
const LEAST: usize = 1 << 20;

/// Reads `[history]`; its written form is what it means.
pub(crate) fn read(table: &Table<'_>) -> Config {
    let or = |written: Option<At<Duration>>, default| written.map_or(default, |written| written.value);
    let storage = table.word("storage", &[("disk", Storage::Disk), ("memory", Storage::Memory)]);
    let storage = storage.map_or(Storage::Disk, |storage| storage.value);
    let size = match storage {
        Storage::Disk => 256 << 20,
        Storage::Memory => 16 << 20,
    };
    let privacy = table.word(
        "privacy",
        &[("everything", Privacy::Everything), ("no-clients", Privacy::NoClients), ("counts", Privacy::Counts)],
    );
    Config {
        storage,
        keep: or(table.parsed("keep", value::wait), Duration::from_secs(90 * 86_400)),
        size: table.parsed("size", bytes).map_or(size, |size| u64::try_from(size.value).unwrap_or(u64::MAX)),
        privacy: privacy.map_or(Privacy::Everything, |privacy| privacy.value),
    }
}

fn bytes(text: &str) -> Result<usize, Wrong> {
    let size = value::size(text)?;
    if size < LEAST {
        return Err(Wrong::new(format!("\"{text}\" holds hardly anything"), "write at least \"1MiB\""));
    }
    Ok(size)
}
