//! Runs programs of the owner's, in a small process that was started before the sandbox.
//!
//! It knows only `present NAME VALUE`, `cleanup NAME VALUE` and `backup FILE made`, and only the programs that it was started for. So
//! whoever takes the edge over can make it run nothing else.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::privilege::{self, User};

/// How long a program may run, and how much longer its answer may take.
const PROGRAM: Duration = Duration::from_secs(120);
const GRACE: Duration = Duration::from_secs(10);
/// What it is asked and what it answers is one line, no longer than this.
const LINE: u64 = 4096;
/// Letters of an answer; one takes up to four bytes.
const ANSWER: usize = 512;
/// Programs that wait for their turn. With a deadline for each, who waits is answered in the end.
const WAITING: usize = 8;
const GONE: &str = "the helper process is gone; a restart starts it again";

/// The hidden command that the process is started with.
pub const COMMAND: &str = "run-hooks";

/// The helper process, as a handle. It ends when the last handle is dropped.
#[derive(Clone, Debug)]
pub struct Helper(Arc<Mutex<Line>>);

/// The way to it.
#[derive(Debug)]
enum Line {
    /// Nothing was asked yet: threads begin after privileges were given up.
    Fresh(UnixStream),
    /// A thread talks, whatever becomes of who asked.
    Talking(mpsc::SyncSender<Job>),
    Gone,
}

struct Job {
    line: String,
    answer: oneshot::Sender<Result<(), String>>,
}

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
        Ok(Self::over(ours))
    }

    fn over(stream: UnixStream) -> Self {
        Self(Arc::new(Mutex::new(Line::Fresh(stream))))
    }

    /// Runs a program; one after the other. One that has begun is not ended when its caller stops waiting.
    pub async fn run(&self, program: &Path, verb: &str, name: &str, value: &str) -> Result<(), String> {
        let (answer, said) = oneshot::channel();
        let line = format!("{verb}\t{name}\t{value}\t{}\n", program.display());
        if u64::try_from(line.len()).is_ok_and(|length| length > LINE) {
            return Err(format!("{name} and the program's path are too long together"));
        }
        self.hand_over(Job { line, answer })?;
        said.await.unwrap_or_else(|_| Err(GONE.to_owned()))
    }

    fn hand_over(&self, job: Job) -> Result<(), String> {
        let mut line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Line::Fresh(_) = *line
            && let Line::Fresh(stream) = std::mem::replace(&mut *line, Line::Gone)
        {
            let (jobs, wanted) = mpsc::sync_channel(WAITING);
            let talk = std::thread::Builder::new().name("hooks".into()).spawn(move || talk(stream, &wanted));
            *line = talk.map_or(Line::Gone, |_| Line::Talking(jobs));
        }
        let Line::Talking(jobs) = &*line else { return Err(GONE.to_owned()) };
        jobs.try_send(job).map_err(|error| match error {
            mpsc::TrySendError::Full(_) => format!("{WAITING} programs wait already"),
            mpsc::TrySendError::Disconnected(_) => GONE.to_owned(),
        })
    }
}

/// Asks one thing after the other, until the last handle is dropped or the process is gone.
fn talk(mut stream: UnixStream, jobs: &mpsc::Receiver<Job>) {
    let Ok(mut answers) = stream.try_clone().map(BufReader::new) else { return };
    let _ = stream.set_read_timeout(Some(PROGRAM + GRACE));
    let _ = stream.set_write_timeout(Some(GRACE));
    // An answer that took too long: it still comes first, and is nobody's.
    let mut owed = false;
    for Job { line, answer } in jobs {
        if answer.is_closed() {
            continue;
        }
        let said = exchange(&mut stream, &mut answers, &line, &mut owed);
        let over = matches!(&said, Err(error) if !is_timeout(error));
        let _ = answer.send(match said {
            Ok(said) if said.trim() == "ok" => Ok(()),
            Ok(said) => Err(said.trim().to_owned()),
            Err(error) if over => Err(format!("{GONE}: {error}")),
            Err(_) => Err("the helper process does not answer in time".to_owned()),
        });
        if over {
            return;
        }
    }
}

fn exchange(
    stream: &mut UnixStream,
    answers: &mut BufReader<UnixStream>,
    line: &str,
    owed: &mut bool,
) -> io::Result<String> {
    if std::mem::replace(owed, true) {
        read_line(answers)?;
    }
    stream.write_all(line.as_bytes())?;
    let said = read_line(answers)?;
    *owed = false;
    Ok(said)
}

fn read_line(answers: &mut BufReader<UnixStream>) -> io::Result<String> {
    let mut said = String::new();
    if io::Read::take(answers, LINE).read_line(&mut said)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // The rest of a longer line would be taken for the next answer.
    if said.ends_with('\n') {
        Ok(said)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "an answer is too long"))
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
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
        writeln!(out, "{}", sentence(&answer))?;
        out.flush()?;
    }
}

/// Makes one line of an answer, with room to spare in what is read at the other end.
fn sentence(answer: &str) -> String {
    answer.replace(char::is_control, " ").chars().take(ANSWER).collect()
}

/// Reads what is asked; `None` unless it is one of the three things, of a program that is known.
fn parse<'a>(line: &'a str, programs: &'a [PathBuf]) -> Option<(&'a Path, [&'a str; 3])> {
    let mut parts = line.split('\t');
    let (verb, name, value) = (parts.next()?, parts.next()?, parts.next()?);
    let program = parts.next()?;
    let of_a_name = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let of_a_value = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
    let fits = matches!(verb, "present" | "cleanup" | "backup")
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

    #[tokio::test]
    async fn a_caller_that_stops_waiting_does_not_end_the_conversation() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let helper = Helper::over(ours);
        let program = Path::new("/etc/hearthgate/dns");
        let mut asked = BufReader::new(theirs.try_clone().unwrap());
        let (begun, has_begun) = oneshot::channel();
        let (left, has_left) = mpsc::channel();
        let process = std::thread::spawn(move || {
            let mut lines = [String::new(), String::new()];
            asked.read_line(&mut lines[0]).unwrap();
            begun.send(()).unwrap();
            // The answer to the first comes when nobody waits for it any more.
            has_left.recv().unwrap();
            theirs.write_all(b"too slow\n").unwrap();
            asked.read_line(&mut lines[1]).unwrap();
            theirs.write_all(b"ok\n").unwrap();
            lines
        });

        let first = helper.run(program, "present", "a.example", "one");
        tokio::select! {
            biased;
            said = first => panic!("{said:?}"),
            _ = has_begun => {}
        }
        left.send(()).unwrap();
        let second = helper.run(program, "cleanup", "a.example", "one").await;

        assert_eq!(second, Ok(()));
        let [first, second] = process.join().unwrap();
        assert!(first.starts_with("present\t") && second.starts_with("cleanup\t"), "{first}{second}");
        assert!(helper.run(program, "present", "a.example", "two").await.unwrap_err().starts_with(GONE));
    }

    #[tokio::test]
    async fn what_is_too_long_is_refused_and_never_read_as_two() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let helper = Helper::over(ours);
        let long = "x".repeat(5000);
        let answering = std::thread::spawn({
            let answer = format!("{long}\nok\n");
            move || {
                BufReader::new(theirs.try_clone().unwrap()).read_line(&mut String::new()).unwrap();
                theirs.write_all(answer.as_bytes()).unwrap();
            }
        });

        let asked = helper.run(&Path::new("/etc").join(&long), "present", "a.example", "one").await;
        let answered = helper.run(Path::new("/etc/dns"), "present", "a.example", "one").await;
        answering.join().unwrap();
        let next = helper.run(Path::new("/etc/dns"), "present", "a.example", "two").await;

        assert!(asked.unwrap_err().contains("too long"));
        assert!(answered.unwrap_err().contains("too long"));
        assert!(next.unwrap_err().starts_with(GONE), "what is left of the first is no answer to the second");
        assert!(sentence(&"\u{1f600}\n".repeat(5000)).len() < LINE as usize);
    }

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
