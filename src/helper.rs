//! Runs programs of the owner's, in a small process that was started before the sandbox.
//!
//! It knows only `present NAME VALUE` and `cleanup NAME VALUE`, and only the programs that it was started for. So
//! whoever takes the edge over can make it run nothing else.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt},
    sync::Mutex,
    time::timeout,
};

use crate::privilege::{self, User};

/// How long a program may run.
const PROGRAM: Duration = Duration::from_secs(120);
/// What it is asked and what it answers is one line, no longer than this.
const LINE: u64 = 4096;

/// The hidden command that the process is started with.
pub const COMMAND: &str = "run-hooks";

/// The helper process, as a handle. It ends when the last handle is dropped.
#[derive(Clone, Debug)]
pub struct Helper(Arc<Mutex<Option<UnixStream>>>);

impl Helper {
    /// Starts it, as this user if there is one to become.
    pub fn start(own: &Path, programs: &[PathBuf], user: Option<&User>) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(own);
        command.arg(COMMAND).args(programs);
        command.stdin(OwnedFd::from(theirs.try_clone()?)).stdout(OwnedFd::from(theirs)).stderr(Stdio::inherit());
        // A signal from the terminal is for the edge, which tells the helper by closing.
        command.process_group(0);
        if let Some(user) = user {
            command.uid(user.uid()).gid(user.gid());
        }
        command.spawn()?;
        ours.set_nonblocking(true)?;
        Ok(Self(Arc::new(Mutex::new(Some(ours)))))
    }

    /// Runs a program; one after the other.
    pub async fn run(&self, program: &Path, verb: &str, name: &str, value: &str) -> Result<(), String> {
        let gone = "the helper process is gone; a restart starts it again";
        let mut kept = self.0.lock().await;
        let stream = kept.take().ok_or(gone)?;
        let talk = async {
            let again = stream.try_clone()?;
            let mut stream = tokio::net::UnixStream::from_std(stream)?;
            stream.write_all(format!("{verb}\t{name}\t{value}\t{}\n", program.display()).as_bytes()).await?;
            let mut answer = String::new();
            let mut limited = tokio::io::BufReader::new(tokio::io::AsyncReadExt::take(&mut stream, LINE));
            if limited.read_line(&mut answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok::<_, io::Error>((again, answer))
        };
        match timeout(PROGRAM + Duration::from_secs(10), talk).await {
            Ok(Ok((stream, answer))) => {
                *kept = Some(stream);
                match answer.trim() {
                    "ok" => Ok(()),
                    other => Err(other.to_owned()),
                }
            }
            Ok(Err(error)) => Err(format!("{gone}: {error}")),
            Err(_) => Err(gone.to_owned()),
        }
    }
}

/// Is the helper process: answers lines until there are no more.
pub fn serve(programs: &[PathBuf]) -> io::Result<()> {
    // It was started before the edge gave its own up, and what a service manager hands over survives a start.
    privilege::renounce()?;
    let mut lines = BufReader::new(io::stdin());
    let mut out = io::stdout();
    loop {
        let mut line = String::new();
        if io::Read::take(&mut lines, LINE).read_line(&mut line)? == 0 {
            return Ok(());
        }
        let answer = match parse(line.trim_end_matches('\n'), programs) {
            Some((program, arguments)) => run(program, &arguments).map_or_else(|why| why, |()| "ok".to_owned()),
            None => "this was not asked for in the configuration that the edge was started with".to_owned(),
        };
        writeln!(out, "{}", answer.replace(char::is_control, " "))?;
        out.flush()?;
    }
}

/// Reads what is asked; `None` unless it is one of the two things, of a program that is known.
fn parse<'a>(line: &'a str, programs: &'a [PathBuf]) -> Option<(&'a Path, [&'a str; 3])> {
    let mut parts = line.split('\t');
    let (verb, name, value) = (parts.next()?, parts.next()?, parts.next()?);
    let program = parts.next()?;
    let of_a_name = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let of_a_value = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
    let fits = matches!(verb, "present" | "cleanup")
        && !name.is_empty()
        && !name.starts_with('-')
        && name.chars().all(of_a_name)
        && !value.is_empty()
        && value.chars().all(of_a_value)
        && parts.next().is_none();
    let program = programs.iter().find(|known| known.as_os_str() == program)?;
    fits.then_some((program, [verb, name, value]))
}

fn run(program: &Path, arguments: &[&str; 3]) -> Result<(), String> {
    let said = |error: io::Error| format!("{}: {error}", program.display());
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    let mut child = command.spawn().map_err(said)?;
    let end = Instant::now() + PROGRAM;
    loop {
        match child.try_wait().map_err(said)? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(format!("{}: {status}", program.display())),
            None if Instant::now() >= end => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{} did not end within {} seconds", program.display(), PROGRAM.as_secs()));
            }
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_things_of_known_programs_are_done() {
        let programs = [PathBuf::from("/etc/hearthgate/dns")];
        let known = |line: &str| parse(line, &programs).is_some();

        assert!(known("present\t_acme-challenge.home.example\tabc-_1\t/etc/hearthgate/dns"));
        assert!(known("cleanup\t_acme-challenge.home.example\tabc\t/etc/hearthgate/dns"));
        for line in [
            "",
            "present",
            "remove\ta\tb\t/etc/hearthgate/dns",
            "present\ta\tb\t/bin/sh",
            "present\ta;b\tc\t/etc/hearthgate/dns",
            "present\t--help\tc\t/etc/hearthgate/dns",
            "present\ta\t$(b)\t/etc/hearthgate/dns",
            "present\ta\tb\t/etc/hearthgate/dns\tmore",
            "present\t\tb\t/etc/hearthgate/dns",
        ] {
            assert!(!known(line), "{line:?}");
        }
    }
}
