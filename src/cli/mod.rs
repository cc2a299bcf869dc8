//! The commands: one file for each. Without one, the quick start runs.

mod audit;
mod backup;
mod ca;
mod check;
mod client;
mod config;
mod confirm;
mod console;
mod devices;
mod doctor;
mod explain;
mod firewall;
mod init;
mod list;
mod listeners;
mod offline;
mod passphrase;
mod peer;
mod ports;
mod queries;
mod reload;
mod restore;
mod rule;
mod run;
mod status;
mod tour;
mod trust;
mod uptime;
mod user;

use std::{fmt, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, error::ErrorKind};

use crate::{app, config::state_folder, helper};

/// A failure.
const FAILURE: u8 = 1;
/// Arguments that cannot be understood.
const USAGE: u8 = 2;
/// A bad configuration (EX_CONFIG of sysexits.h).
const BAD_CONFIG: u8 = 78;

/// The DNS server, the HTTP ingress and the VPN gate at the edge of a home, in one process.
#[derive(Debug, Parser)]
#[command(name = "hearthgate", version, about, max_term_width = 100)]
struct Arguments {
    /// The state folder, instead of the one that the configuration names.
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the edge; without --config, a quick start on loopback
    Run(run::Run),
    /// Say what is wrong with a configuration, or what it means
    Check(check::Check),
    /// Load the configuration again; a bad one changes nothing
    Reload(Running),
    /// Show the state of everything
    Status(status::Status),
    /// Say what happens to a question, and why: what was asked of whom, and what was proved
    Explain(explain::Explain),
    /// Show the certificate of a server, to be trusted by its fingerprint
    Trust(trust::Trust),
    /// Look at this box: what is wrong with it, why that matters, and what to type
    Doctor(doctor::Doctor),
    /// Print what a firewall needs for a configuration
    #[command(subcommand)]
    Firewall(firewall::Firewall),
    /// Prove the promise from outside, as a client of the running quick start
    Tour(Running),
    /// Look at this box and write a first configuration
    Init(init::Init),
    /// Add, list or remove peers of the VPN
    #[command(subcommand)]
    Peer(peer::Peer),
    /// Add, list or remove people: what they may change, and their peers
    #[command(subcommand)]
    User(user::User),
    /// Show the devices of the house, or say that new ones are known
    Devices(devices::Devices),
    /// Keep a change that could lock its author out; it takes itself back otherwise
    Confirm(confirm::Confirm),
    /// What was changed, by whom and when
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Say how to open the console
    Console(console::Console),
    /// Show what the house asked and what came of it, as far as a history is kept
    Queries(queries::Queries),
    /// Show what is up and what is down, since when, and how often it was
    Uptime(uptime::Uptime),
    /// Let a name through, for good or for a time
    Allow(rule::Rule),
    /// Block a name, for good or for a time
    Block(rule::Rule),
    /// Block nothing for a while
    Pause(rule::Pause),
    /// Look at block and allow lists
    #[command(subcommand)]
    List(list::List),
    /// Show the house's own CA, or write it for phones and browsers
    Ca(ca::Ca),
    /// Write everything that makes this box what it is into one encrypted file
    Backup(backup::Backup),
    /// Make this box what another one was, from a backup
    Restore(restore::Restore),
    /// Runs programs of the owner's; started by the edge itself
    #[command(name = helper::COMMAND, hide = true)]
    RunHooks {
        /// The programs that may be run
        programs: Vec<PathBuf>,
    },
    /// Show, compare or take back configurations that were accepted
    #[command(subcommand)]
    Config(config::Config),
}

/// Which running process is meant.
#[derive(Args, Clone, Debug)]
struct Running {
    /// The configuration file of the running process, which names its state folder
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Running {
    /// Returns the state folder of the process that is meant.
    fn state(&self, given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
        let options = app::Options { state: given, ..app::Options::default() };
        let source = self.source();
        let state =
            state_folder(source.to_config(), &options.to_config()).map_err(|problems| Problem(problems.to_string()))?;
        let system = PathBuf::from("/var/lib/hearthgate");
        // Nothing was said: what runs as a service is meant if the user runs none.
        if source == app::Source::QuickStart
            && options.state.is_none()
            && app::holder(&state).is_none()
            && system.join("lock").exists()
        {
            return Ok(system);
        }
        Ok(state)
    }

    fn source(&self) -> app::Source {
        self.config.clone().map_or(app::Source::QuickStart, app::Source::File)
    }
}

/// A bad configuration, in words; makes the exit code.
#[derive(Debug)]
pub(crate) struct Problem(pub(crate) String);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Problem {}

/// A time in seconds since 1970, as people read it.
fn readable(seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(seconds).unwrap_or_default();
    time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

/// Does what the arguments say.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if asked { ExitCode::SUCCESS } else { ExitCode::from(USAGE) };
        }
    };
    let state = arguments.state;
    let done = match arguments.command.unwrap_or_else(|| Command::Run(run::Run::default())) {
        Command::Run(command) => command.execute(state),
        Command::Check(command) => command.execute(state),
        Command::Reload(running) => reload::execute(&running, state),
        Command::Status(command) => command.execute(state),
        Command::Explain(command) => command.execute(state),
        Command::Trust(command) => command.execute(),
        Command::Doctor(command) => command.execute(state),
        Command::Firewall(command) => command.execute(state),
        Command::Tour(running) => tour::execute(&running, state),
        Command::Init(command) => command.execute(state),
        Command::Peer(command) => command.execute(state),
        Command::User(command) => command.execute(state),
        Command::Devices(command) => command.execute(state),
        Command::Confirm(command) => command.execute(state),
        Command::Console(command) => command.execute(state),
        Command::Queries(command) => command.execute(state),
        Command::Uptime(command) => command.execute(state),
        Command::Audit(command) => command.execute(state),
        Command::Allow(command) => command.execute(state, app::rules::RuleEdit::Allow),
        Command::Block(command) => command.execute(state, app::rules::RuleEdit::Block),
        Command::Pause(command) => command.execute(state),
        Command::List(command) => command.execute(),
        Command::Config(command) => command.execute(state),
        Command::Ca(command) => command.execute(state),
        Command::Backup(command) => command.execute(state),
        Command::Restore(command) => command.execute(state),
        Command::RunHooks { programs } => helper::serve(&programs).map_err(Into::into),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(Problem(problems)) = error.downcast_ref::<Problem>() {
                eprintln!("{problems}");
                // What was said besides the problems themselves.
                let context = error.to_string();
                if context != *problems {
                    eprintln!("hearthgate: {context}");
                }
                return ExitCode::from(BAD_CONFIG);
            }
            eprintln!("hearthgate: {error:#}");
            ExitCode::from(FAILURE)
        }
    }
}
