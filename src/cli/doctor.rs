//! `hearthgate doctor`: looks at this box and says what is wrong with it, why that matters, and what to type.
//!
//! What it looks at is files of the kernel and the system, the configuration, and what the running edge says of
//! itself. What it tries, it tries from this box at the edge's own addresses. It changes nothing; only `--stranger`
//! lays a wire, and takes it away again.

mod clock;
mod finding;
mod hairpin;
mod ipv6;
mod kernel;
mod loops;
mod machine;
mod memory;
mod mtu;
mod nat;
mod other_dns;
mod ports;
mod reach;
mod resolv;
mod storage;
mod sysctls;

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;

use self::{
    finding::{Finding, Mark},
    machine::Machine,
};
use crate::{
    app::{self, Source, status::Status},
    cli::{Running, client},
    config::{self, Compiled, PeerIds},
    onlink::{self, Kernel},
};

/// Where the packages keep the configuration.
const PACKAGED: &str = "/etc/hearthgate/hearthgate.toml";

#[derive(Args, Debug)]
pub(super) struct Doctor {
    /// For programs
    #[arg(long)]
    json: bool,
    /// Say what is good as well
    #[arg(long)]
    all: bool,
    /// Try from outside as well, as root: a network namespace on a wire of its own, which is taken away again
    #[arg(long)]
    stranger: bool,
    /// Look at the files of a box below this folder
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    root: PathBuf,
    #[command(flatten)]
    running: Running,
}

/// What is looked at.
struct Patient<'a> {
    machine: Machine,
    kernel: Kernel,
    config: Option<&'a Compiled>,
    status: Option<&'a Status>,
}

impl Doctor {
    pub(super) fn execute(mut self, state: Option<PathBuf>) -> anyhow::Result<()> {
        if self.running.config.is_none() && state.is_none() && Path::new(PACKAGED).exists() {
            self.running.config = Some(PACKAGED.into());
        }
        let state = self.running.state(state)?;
        let status: Option<Status> = client::get(&state, "/api/v1/status").ok();
        let source = match (&self.running.config, &status) {
            (Some(file), _) => Source::File(file.clone()),
            (None, Some(status)) => status.file.clone().map_or(Source::QuickStart, Source::File),
            (None, None) => Source::QuickStart,
        };
        let options = app::Options { source, state: Some(state.clone()), ..app::Options::default() };
        let loaded = config::check(options.source.to_config(), &options.to_config(), &mut PeerIds::default());
        let mut findings = vec![running(status.as_ref(), &state)];
        if let Err(problems) = &loaded {
            let what = format!("the configuration is refused:\n{problems}");
            let why = "neither a reload nor a restart takes it";
            findings.push(Finding::bad("config", what).because(why).type_in("hearthgate check --config FILE"));
        }
        let config = loaded.as_ref().ok().map(|loaded| &loaded.compiled);
        let kernel = onlink::kernel().unwrap_or_default();
        let patient = Patient { machine: Machine::new(&self.root), kernel, config, status: status.as_ref() };
        findings.extend(patient.examine());
        let from = if self.stranger { reach::From::OutsideToo } else { reach::From::ThisBox };
        let reach = match (config, &status) {
            (Some(config), Some(status)) => {
                let (table, astray) = reach::table(config, status, from)?;
                findings.extend(astray);
                Some(table)
            }
            _ => None,
        };
        if self.json {
            println!("{}", serde_json::to_string_pretty(&serde_json::json!({ "findings": findings, "reach": reach }))?);
        } else {
            let shown = findings.iter().filter(|finding| self.all || finding.mark != Mark::Good);
            shown.for_each(|finding| print!("{finding}"));
            let good = findings.iter().filter(|finding| finding.mark == Mark::Good).count();
            if !self.all && good > 0 {
                println!("✓ {good} things are as they should be (--all shows them)");
            }
            if let Some(table) = &reach {
                print!("\n{table}");
            }
        }
        match findings.iter().filter(|finding| finding.mark == Mark::Bad).count() {
            0 => Ok(()),
            1 => bail!("one thing is wrong"),
            bad => bail!("{bad} things are wrong"),
        }
    }
}

fn running(status: Option<&Status>, state: &Path) -> Finding {
    match status {
        Some(status) => Finding::good("hearthgate", format!("runs as {}", status.privileges)),
        None => Finding::odd("hearthgate", format!("nothing answers on the state in {}", state.display()))
            .because("what only the running edge knows is left out here; a socket of another user's needs root")
            .type_in("sudo hearthgate doctor; or start it: sudo systemctl start hearthgate"),
    }
}

impl Patient<'_> {
    /// Everything that values say; nothing is sent but by `hairpin`.
    fn examine(&self) -> Vec<Finding> {
        let parts = [
            kernel::findings(self),
            ports::findings(self),
            clock::findings(self),
            ipv6::findings(self),
            mtu::findings(self),
            sysctls::findings(self),
            resolv::findings(self),
            loops::findings(self),
            other_dns::findings(self),
            nat::findings(self),
            hairpin::findings(self),
            storage::findings(self),
            memory::findings(self),
        ];
        parts.into_iter().flatten().collect()
    }

    /// Names of the LAN's interfaces; where none is named, of those with a default route.
    fn interfaces(&self) -> Vec<String> {
        match self.config.map(|config| &config.lan.interfaces) {
            Some(interfaces) if !interfaces.is_empty() => interfaces.clone(),
            _ => {
                let defaults = self.kernel.gateways.iter().filter_map(|(interface, _)| *interface);
                let mut names: Vec<String> =
                    defaults.filter_map(|index| self.kernel.name(index)).map(str::to_owned).collect();
                names.sort();
                names.dedup();
                names
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A box whose files are these.
    pub(super) fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Machine) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let machine = Machine::new(folder.path());
        (folder, machine)
    }

    /// What a section says of a box with these files and no configuration.
    pub(super) fn of(files: &[(&str, &str)], section: fn(&Patient<'_>) -> Vec<Finding>) -> Vec<Finding> {
        let (_folder, machine) = machine(files);
        section(&Patient { machine, kernel: Kernel::default(), config: None, status: None })
    }

    /// A configuration as an owner writes it.
    pub(in crate::cli) fn config(text: &str) -> Compiled {
        let folder = tempfile::tempdir().unwrap();
        let options = config::Options { state: Some(folder.path().into()), ..config::Options::default() };
        let file = folder.path().join("hearthgate.toml");
        let source = config::Source::Text(&file, text);
        config::check(source, &options, &mut PeerIds::default()).unwrap().compiled
    }
}
