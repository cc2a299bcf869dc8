//! `hearthgate devices`: who is on the wire, and what they are called; `accept` takes them out of the group `new`.

use std::{fmt::Write, path::PathBuf};

use anyhow::bail;
use clap::{Args, Subcommand};

use crate::{
    app::{Accept, Accepted, Devices as Found},
    cli::{Running, client, readable},
    neighbours::Mac,
};

#[derive(Args, Debug)]
pub(super) struct Devices {
    #[command(subcommand)]
    command: Option<Command>,
    /// For programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    running: Running,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say that a device is known: it leaves the group "new"
    Accept {
        /// Its MAC address
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        mac: Option<String>,
        /// All that were seen so far
        #[arg(long)]
        all: bool,
    },
}

impl Devices {
    pub(super) fn execute(self, state: Option<PathBuf>) -> anyhow::Result<()> {
        let state = self.running.state(state)?;
        if let Some(Command::Accept { mac, .. }) = self.command {
            let mac = mac.map(|mac| mac.parse::<Mac>()).transpose().map_err(anyhow::Error::msg)?;
            let accepted: Accepted = client::post(&state, "/api/v1/devices/accept", &Accept { mac })?;
            return match (accepted.devices, mac) {
                (0, Some(mac)) => bail!("{mac} is not among the new devices"),
                (count, _) => {
                    println!("{count} devices are known now");
                    Ok(())
                }
            };
        }
        let found: Found = client::get(&state, "/api/v1/devices")?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&found)?);
        } else {
            print!("{}", show(&found));
        }
        Ok(())
    }
}

fn show(found: &Found) -> String {
    let mut text = String::new();
    for device in &found.devices {
        let name = device.name.as_deref().unwrap_or("-");
        let groups = if device.groups.is_empty() { "-".to_owned() } else { device.groups.join(", ") };
        let mut marks = String::new();
        for (is_so, mark) in [
            (device.random, ", made-up MAC"),
            (device.new, ", new"),
            (device.passes_by, ", asks nothing: probably passes us by"),
        ] {
            marks.push_str(if is_so { mark } else { "" });
        }
        let seen = readable(i64::try_from(device.last_seen).unwrap_or(i64::MAX));
        let _ = writeln!(text, "{} {name}: group {groups}, last seen {seen}{marks}", device.mac);
        if !device.addresses.is_empty() {
            let addresses: Vec<String> = device.addresses.iter().map(ToString::to_string).collect();
            let _ = writeln!(text, "  {}", addresses.join(" "));
        }
    }
    for problem in &found.problems {
        let _ = writeln!(text, "{problem}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::KnownDevice;

    #[test]
    fn a_line_says_what_is_odd_about_a_device() {
        let mac: Mac = "02:00:00:00:00:07".parse().unwrap();
        let device = KnownDevice {
            mac,
            random: true,
            name: None,
            addresses: vec!["192.168.1.20".parse().unwrap(), "2001:db8::7".parse().unwrap()],
            groups: vec!["new".into()],
            new: true,
            first_seen: 0,
            last_seen: 0,
            asked: None,
            passes_by: true,
        };

        let text = show(&Found { devices: vec![device], problems: vec!["group \"kids\" is odd".into()] });

        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("02:00:00:00:00:07 -: group new, last seen 1970"), "{text}");
        assert!(lines[0].ends_with(", made-up MAC, new, asks nothing: probably passes us by"), "{text}");
        assert_eq!(lines[1..], ["  192.168.1.20 2001:db8::7", "group \"kids\" is odd"]);
    }
}
