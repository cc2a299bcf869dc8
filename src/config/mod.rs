//! From the owner's file to what each plane is told.
//!
//! A file passes through four rooms. [`mod@file`] reads it section by section into what was written, with the
//! place of every value; it goes on after a mistake, so that all of them are reported at once
//! ([`problems`]). What commands added ([`edits`]) is read in the same way. `compile` makes of both what each
//! plane means by it, and checks the sections against one another. What is accepted is kept as a generation
//! ([`generations`]). Nothing here listens, sends or asks the network.

mod compile;
pub mod edits;
pub mod file;
pub mod generations;
pub mod hidden;
mod made;
pub mod problems;
mod value;

use std::{
    collections::HashMap,
    env, io,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use sha2::{Digest, Sha256};

pub use file::{Log, LogFormat};
pub use made::tour_key;
pub use problems::{Problem, Problems};

use crate::{
    backup, console, dns, history,
    ingress::{self, canonical::CanonicalHost},
    listen::Place,
    onlink,
    origin::{Directory, PeerId, Role},
    sandbox,
    vpn::{self, keys::PublicKey},
    wan, watch,
};

/// What is started when there is no file.
pub const QUICK_START: &str = include_str!("../../config/quickstart.toml");

/// No file of an owner is longer; something else was named by mistake.
const MAX_FILE: u64 = 1 << 20;

/// A configuration that was accepted.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it means.
    pub compiled: Compiled,
    /// SHA-256 of file and edits, in hexadecimal.
    pub digest: String,
    /// What is odd, but no reason to refuse it.
    pub warnings: Vec<Problem>,
    /// The file as it was read.
    pub file: String,
    /// The edits as they were read.
    pub edits: String,
    /// What is made once, and was not there yet.
    made: made::Made,
}

/// What a configuration means.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// What holds for the whole box.
    pub node: Node,
    /// Who is at home.
    pub lan: onlink::Config,
    /// Names that are kept at the address of this box, if there are any.
    pub wan: Option<wan::Config>,
    /// The DNS plane, if there is one.
    pub dns: Option<dns::Config>,
    /// The ingress, if there is one.
    pub ingress: Option<ingress::Config>,
    /// The gate, if there is one.
    pub vpn: Option<vpn::Config>,
    /// People, and what they may change.
    pub users: Vec<User>,
    /// Where figures may be read, if anywhere.
    pub metrics: Option<Scrape>,
    /// Backups that are made by themselves, if any.
    pub backup: Option<backup::Config>,
    /// What is kept of what happened, if anything.
    pub history: Option<history::Config>,
    /// Its pages, if they are more than what the control socket shows.
    pub console: Option<console::Config>,
    /// What is watched, if anything can be.
    pub watch: Option<watch::Config>,
    /// Names of networks and peers.
    pub directory: Directory,
    /// Every file that is named.
    pub files: Vec<PathBuf>,
}

impl Compiled {
    /// Returns the programs of the owner's that may have to be run.
    pub fn programs(&self) -> Vec<PathBuf> {
        let entries = self.ingress.iter().flat_map(|ingress| &ingress.acme);
        let programs = entries.filter_map(|entry| entry.provider.as_ref()?.program());
        let programs = programs.chain(self.backup.iter().filter_map(|backup| backup.program.as_ref()));
        let mut programs: Vec<PathBuf> = programs.cloned().collect();
        programs.sort();
        programs.dedup();
        programs
    }
}

/// The meant form of `[[user]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// What the owner calls them.
    pub name: String,
    /// What they may change.
    pub role: Role,
    /// The peers that are theirs, and nobody else's.
    pub peers: Vec<PeerId>,
}

/// The meant form of `[node]`.
#[derive(Clone, Debug)]
pub struct Node {
    /// Names written without it are under it.
    pub domain: CanonicalHost,
    /// Where state is kept.
    pub state: PathBuf,
    /// Whom to become once the ports are bound.
    pub user: Option<String>,
    /// For what people read.
    pub timezone: jiff::tz::TimeZone,
    /// How long work under way may take when the edge is told to stop.
    pub grace: Duration,
    /// How log lines look.
    pub log: Log,
    /// What shuts the process off from the rest of the system.
    pub sandbox: sandbox::Switches,
}

/// The meant form of `[metrics]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scrape {
    /// Where.
    pub listen: Vec<Place>,
    /// Who; the default is this box and the tunnel.
    pub allow: Vec<IpNet>,
}

/// What is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source<'a> {
    /// The owner's file.
    File(&'a Path),
    /// The owner's file as it was read before, whatever stands there now.
    Text(&'a Path, &'a str),
    /// [`QUICK_START`].
    QuickStart,
}

/// What the command line adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The state folder instead of `node.state`.
    pub state: Option<PathBuf>,
    /// `[dns.testing]` is accepted.
    pub testing: bool,
    /// Whether the files that the configuration names must be there.
    pub files: Files,
}

/// Whether the files that the configuration names must be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Files {
    /// Each is opened, so that one which is not to be had is a problem at its place.
    #[default]
    Checked,
    /// They are on another box.
    Unchecked,
}

/// Gives each public key its id; keep one for the life of the process.
#[derive(Clone, Debug, Default)]
pub struct PeerIds {
    known: HashMap<PublicKey, PeerId>,
}

impl PeerIds {
    /// Returns the id of a key: the one it had before, or a new one.
    pub fn id(&mut self, key: PublicKey) -> PeerId {
        let next = PeerId(u32::try_from(self.known.len()).expect("files hold fewer than 2^32 keys"));
        *self.known.entry(key).or_insert(next)
    }
}

impl Loaded {
    /// Keeps keys and prefixes that are made once, and sets torn edits aside.
    ///
    /// Whoever will read them later calls this, once it is certain that the configuration is used.
    pub fn keep(&self) -> io::Result<()> {
        self.made.keep()?;
        edits::Edits::read(&self.compiled.node.state).map(|_| ())
    }
}

/// Loads a configuration to be used, and keeps what is made once.
pub fn load(source: Source<'_>, options: &Options, ids: &mut PeerIds) -> Result<Loaded, Problems> {
    let loaded = check(source, options, ids)?;
    let fail = |error| {
        let what = format!("the keys cannot be kept in \"{}\": {error}", loaded.compiled.node.state.display());
        Problems::whole(what, "see that the state folder can be written, or choose another with --state DIR")
    };
    loaded.keep().map_err(fail)?;
    Ok(loaded)
}

/// Loads a configuration to be looked at: nothing is written. What is made once is made up, until
/// [`Loaded::keep`] keeps it.
pub fn check(source: Source<'_>, options: &Options, ids: &mut PeerIds) -> Result<Loaded, Problems> {
    let text = text_of(source)?;
    let file_text = text.content.clone();
    let state = state_folder(source, options)?;
    let edits = edits::Edits::look(&state).map_err(|error| {
        let what = format!("{}: {error}", state.join(edits::FILE).display());
        Problems::whole(what, "see that the state folder can be read, or remove the file")
    })?;
    let edits_text = edits.text();
    let report = problems::Report::new(text, problems::Source::edits(edits_text.clone(), &state));
    let made = made::Made::default();
    let compiled = compiled(source, &report, state, options, ids, &made);
    let warnings = report.finish()?;
    Ok(Loaded {
        compiled: compiled.expect("without a problem there is a configuration"),
        digest: digest(&file_text, &edits_text),
        warnings,
        file: file_text,
        edits: edits_text,
        made,
    })
}

/// Reads a time span as the configuration has them: `30m`, `2h`, `1d`.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    value::wait(text).map_err(|wrong| format!("{}: {}", wrong.what, wrong.hint))
}

/// Returns the state folder of a configuration without loading it: commands need it to reach the running edge.
///
/// A file with problems still has a state folder, as long as its `node.state` can be read.
pub fn state_folder(source: Source<'_>, options: &Options) -> Result<PathBuf, Problems> {
    if let Some(state) = &options.state {
        return Ok(state.clone());
    }
    let (Source::File(path) | Source::Text(path, _)) = source else { return quick_start_state() };
    let report = problems::Report::new(text_of(source)?, problems::Source::edits(String::new(), Path::new("")));
    Ok(folder_of(path).join(file::read(&report).node.state))
}

fn compiled(
    source: Source<'_>,
    report: &problems::Report,
    state: PathBuf,
    options: &Options,
    ids: &mut PeerIds,
    made: &made::Made,
) -> Option<Compiled> {
    let (mut file, edits) = (file::read(report), file::read_edits(report));
    if report.is_broken() {
        // Sections refer to one another; with lines missing, more would be wrong than the owner wrote.
        return None;
    }
    let folder = match source {
        Source::File(path) | Source::Text(path, _) => folder_of(path),
        Source::QuickStart => Path::new("."),
    };
    let named = std::cell::RefCell::default();
    let setting = compile::Setting { folder, state, options, made, report, named: &named };
    if source == Source::QuickStart {
        compile::complete_quick_start(&mut file, &setting);
    }
    match &mut file.vpn {
        Some(vpn) => vpn.peers.extend(edits.peers),
        // The peers wait for the day that the section comes back.
        None if !edits.peers.is_empty() => {
            let about = problems::About { section: "vpn", name: None };
            let what = "peers were added, but the file has no [vpn]";
            report.warning(
                edits.peers[0].at,
                &about,
                what,
                "add a [vpn] section, or remove them with `hearthgate peer remove`",
            );
        }
        None => {}
    }
    file.users.extend(edits.users);
    if let Some(dns) = &mut file.dns {
        dns.rules.extend(edits.rules);
        dns.pauses.extend(edits.pauses);
    }
    Some(compile::compile(file, &setting, ids))
}

fn text_of(source: Source<'_>) -> Result<problems::Source, Problems> {
    let known = |name: &str, text: &str| problems::Source { name: name.into(), content: text.into(), skipped_lines: 0 };
    match source {
        Source::File(path) => text_of_file(path),
        Source::Text(path, text) => Ok(known(&path.display().to_string(), text)),
        Source::QuickStart => Ok(known("quickstart.toml", QUICK_START)),
    }
}

fn text_of_file(path: &Path) -> Result<problems::Source, Problems> {
    use std::io::Read;

    let name = path.display().to_string();
    let fail = |error: std::io::Error| {
        Problems::whole(format!("{name} cannot be read: {error}"), "name the configuration with --config FILE")
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(fail)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > MAX_FILE {
        let what = format!("{name} is longer than 1 MiB");
        return Err(Problems::whole(what, "name a configuration file; lists of names belong in files of their own"));
    }
    match String::from_utf8(bytes) {
        Ok(content) => Ok(problems::Source { name, content, skipped_lines: 0 }),
        Err(_) => Err(Problems::whole(format!("{name} is not UTF-8 text"), "save it as UTF-8")),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

fn quick_start_state() -> Result<PathBuf, Problems> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    let state = state.map(|state| state.join("hearthgate"));
    state.ok_or_else(|| Problems::whole("there is no place to keep state", "name one with --state DIR"))
}

/// File and edits are told apart by a byte that neither may contain.
fn digest(file: &str, edits: &str) -> String {
    let mut digest = Sha256::new();
    digest.update(file);
    digest.update([0]);
    digest.update(edits);
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
