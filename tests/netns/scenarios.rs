//! Scenario files played against the real process: its servers are sockets on the addresses that the files
//! name, in a namespace without a way out. `SCENARIOS=FOLDER` plays another folder, `SCENARIO=NAME` one file.

#[path = "../scenarios/file.rs"]
#[allow(unreachable_pub, dead_code, reason = "shared with the player in memory")]
mod file;
#[path = "../scenarios/records.rs"]
#[allow(unreachable_pub, reason = "shared with the player in memory")]
mod records;

use std::{
    collections::{BTreeSet, HashSet},
    fmt::Write as _,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use file::{Action, Entry, Over, Scenario};
use hearthgate::dns::resolver::{
    name::Name,
    reply,
    wire::{Message, Record, rtype},
};

use super::{
    clock::Clock,
    edge::PROGRAM,
    world::{Host, Program, needs, within},
};

/// Files that want another answer than the process gives, each with the reason.
const OTHERWISE: &[(&str, &str)] = &[];

/// Where the process listens.
const LISTEN: &str = "127.0.0.1:5399";

#[test]
fn the_real_process_answers_scenarios_of_others_as_they_want() {
    needs!("gcc");
    let folder = match (std::env::var_os("SCENARIOS"), std::env::var_os("HEARTHGATE_DATA")) {
        (Some(folder), _) => PathBuf::from(folder),
        (None, Some(data)) => PathBuf::from(data).join("scenarios"),
        (None, None) => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/scenarios"),
    };
    if !folder.is_dir() {
        eprintln!("SKIPPED: no scenarios in {}", folder.display());
        return;
    }
    let failures = play_all(&folder);
    let named = |line: &str, name: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', ':']));
    let unexplained: Vec<&String> =
        failures.iter().filter(|line| !OTHERWISE.iter().any(|(name, _)| named(line, name))).collect();
    assert!(unexplained.is_empty() || std::env::var_os("SCENARIOS").is_some(), "{unexplained:#?}");
}

#[test]
fn the_real_process_answers_our_own_scenarios_as_they_want() {
    needs!("gcc");

    let failures = play_all(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/own"));

    assert!(failures.is_empty(), "{failures:#?}");
}

/// Plays all files of a folder; says of each case what went wrong.
fn play_all(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "rpl"));
    if let Ok(only) = std::env::var("SCENARIO") {
        files.retain(|path| path.file_stem().is_some_and(|stem| stem.to_string_lossy() == only));
    }
    files.sort();
    let host = Host::alone();
    let mut numbered = BTreeSet::new();
    let (mut cases, mut right, mut failures) = (0, 0, Vec::new());
    for path in &files {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let scenario = file::parse(&std::fs::read_to_string(path).expect("a listed file can be read"));
        let scenario = Arc::new(scenario.unwrap_or_else(|error| panic!("{name}: {error}")));
        let modes = match scenario.get("query-minimization") {
            Some(value) => vec![value.starts_with("on") || value.starts_with("yes")],
            None => vec![true, false],
        };
        for address in addresses(&scenario) {
            if numbered.insert(address) && !address.is_loopback() {
                let (length, nodad) = if address.is_ipv4() { (32, "") } else { (128, "nodad") };
                host.run(&format!("ip addr add {address}/{length} dev lo {nodad}"));
            }
        }
        for minimise in modes {
            cases += 1;
            match play(&host, &scenario, minimise) {
                None => right += 1,
                Some(wrong) => failures.push(format!("{name} (minimise {minimise}): {wrong}")),
            }
        }
    }
    failures.iter().for_each(|failure| println!("{failure}"));
    println!("{right} of {cases} cases right");
    failures
}

/// The addresses that servers of a file have; what is answered but once may be asked of any that glue names.
fn addresses(scenario: &Scenario) -> BTreeSet<IpAddr> {
    let hints = scenario.all("stub-addr").chain(scenario.all("forward-addr")).filter_map(address);
    let once = scenario.steps.iter().filter_map(|step| match &step.action {
        Action::Reply(entry) => Some(entry),
        _ => None,
    });
    let glue = once.flat_map(|entry| &entry.additional);
    let hints = hints.chain(glue.filter_map(|record| reply::address(record.rtype, &record.rdata)));
    hints.chain(scenario.ranges.iter().flat_map(|range| range.addresses.iter().copied())).collect()
}

fn address(text: &str) -> Option<IpAddr> {
    text.split(['@', ' ', '\t']).next()?.parse().ok()
}

/// Plays one file; says what went wrong, if anything.
fn play(host: &Host, scenario: &Arc<Scenario>, minimise: bool) -> Option<String> {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let servers = Servers::start(host, scenario);
    let passes = scenario.steps.iter().any(|step| matches!(step.action, Action::TimePasses(_)));
    let clock = passes.then(|| Clock::new(folder.path(), 0));
    let mut passed = 0;
    let mut process = start(host, folder.path(), (scenario, minimise), clock.as_ref());
    let client = host.inside(|| UdpSocket::bind("127.0.0.1:0").expect("loopback is up"));
    client.set_read_timeout(Some(Duration::from_secs(10))).expect("it is a socket");
    let probe = [
        255, 255, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 9, b'l', b'o', b'c', b'a', b'l', b'h', b'o', b's', b't', 0, 0, 1, 0, 1,
    ];
    client.set_read_timeout(Some(Duration::from_millis(100))).expect("it is a socket");
    let up = within(10, || client.send_to(&probe, LISTEN).is_ok() && client.recv(&mut [0; 512]).is_ok());
    assert!(up && process.runs(), "the process does not answer: {}", process.printed());
    client.set_read_timeout(Some(Duration::from_secs(10))).expect("it is a socket");
    let mut answered: Option<(&Entry, Vec<u8>)> = None;
    for (number, step) in (1_u16..).zip(&scenario.steps) {
        servers.step.store(step.number, Ordering::SeqCst);
        match &step.action {
            Action::Query(entry) => {
                answered = ask(host, &client, entry, number).map(|bytes| (entry, bytes));
            }
            Action::CheckAnswer(wanted) => {
                let Some((_, bytes)) = &answered else {
                    return Some(format!("step {}: no answer: {}", step.number, process.printed()));
                };
                if let Some(wrong) = differs(wanted, bytes) {
                    let printed =
                        if std::env::var_os("SCENARIO").is_some() { process.printed() } else { String::new() };
                    return Some(format!("step {}: {wrong}{printed}", step.number));
                }
            }
            Action::TimePasses(seconds) => {
                passed += i64::try_from(*seconds).expect("no file waits for centuries");
                clock.iter().for_each(|clock| clock.set(passed));
            }
            Action::Reply(_) => {}
            Action::Other(action) => return Some(format!("step {}: unknown action {action}", step.number)),
        }
    }
    None
}

fn start(host: &Host, folder: &Path, (scenario, minimise): (&Scenario, bool), clock: Option<&Clock>) -> Program {
    use std::os::unix::fs::PermissionsExt;

    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let state = folder.join("state");
    std::fs::create_dir(&state).expect("the folder is ours");
    super::world::shell(&format!("chown nobody {}", state.display()));
    let now = (scenario.get("val-override-date").and_then(records::time).map(u64::from))
        .or_else(|| scenario.get("val-override-timestamp")?.parse().ok())
        .unwrap_or(1_500_000_000);
    let list = |items: Vec<String>| items.iter().map(|item| format!("{item:?}")).collect::<Vec<_>>().join(", ");
    let all = |key: &str| scenario.all(key).filter_map(address).map(|address| address.to_string()).collect::<Vec<_>>();
    let mut config = format!(
        "[node]\nstate = {state:?}\nuser = \"nobody\"\n[dns]\nlisten = [{LISTEN:?}]\nsha1 = true\nstale = \"0s\"\n\
         rebind_allow = [\".\"]\n"
    );
    let forward = all("forward-addr");
    if !forward.is_empty() {
        let _ = writeln!(config, "resolve = \"forward\"\nupstreams = [{}]", list(forward));
    }
    let negative: Vec<String> =
        scenario.all("domain-insecure").map(|name| format!("{{ name = {name:?}, until = \"9999-01-01\" }}")).collect();
    if !negative.is_empty() {
        let _ = writeln!(config, "nta = [{}]", negative.join(", "));
    }
    let _ = write!(
        config,
        "[dns.testing]\nnow = {now}\nfollow_clock = true\nroot_servers = [{}]\nanchors = [{}]\nminimise = {minimise}\n\
         prefetch = false\nshort_keys = true\nspecial_servers = true\nipv4 = {}\nipv6 = {}\nlog_upstream = true\n",
        list(all("stub-addr")),
        list(scenario.all("trust-anchor").map(str::to_owned).collect()),
        scenario.flag("do-ip4", true),
        scenario.flag("do-ip6", true),
    );
    let file = folder.join("hearthgate.toml");
    std::fs::write(&file, config).expect("the folder is ours");
    let file = file.display().to_string();
    let words = ["run", "--config", &file, "--testing"];
    let log = folder.join("log");
    match clock.map(Clock::environment) {
        Some([library, place]) => host.spawn(&log, "env", &[&[library.as_str(), &place, PROGRAM], &words[..]].concat()),
        None => host.spawn(&log, PROGRAM, &words),
    }
}

fn ask(host: &Host, client: &UdpSocket, entry: &Entry, id: u16) -> Option<Vec<u8>> {
    let (name, rtype) = entry.question.as_ref()?;
    let bits = [("RD", 8), ("AD", 5), ("CD", 4)];
    let flags = bits.iter().filter(|(name, _)| entry.has(name)).fold(0_u16, |flags, (_, bit)| flags | 1 << bit);
    let mut query = id.to_be_bytes().to_vec();
    query.extend(flags.to_be_bytes());
    query.extend([0, 1, 0, 0, 0, 0, 0, 1]);
    query.extend(name.as_wire());
    query.extend(rtype.to_be_bytes());
    query.extend([0, 1]);
    query.extend([0, 0, 41, 16, 0, 0, 0, if entry.has("DO") { 0x80 } else { 0 }, 0, 0, 0]);
    client.send_to(&query, LISTEN).expect("loopback is up");
    let mut buffer = [0; 4096];
    loop {
        let length = client.recv(&mut buffer).ok()?;
        // An answer to an earlier question may be late.
        if buffer[..2] == query[..2] {
            break if buffer[2] & 2 == 0 { Some(buffer[..length].to_vec()) } else { ask_again(host, &query) };
        }
    }
}

/// Over TCP, as a truncated answer tells a client to.
fn ask_again(host: &Host, query: &[u8]) -> Option<Vec<u8>> {
    let mut stream = host.inside(|| TcpStream::connect(LISTEN)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let length = u16::try_from(query.len()).ok()?;
    stream.write_all(&[&length.to_be_bytes(), query].concat()).ok()?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).ok()?;
    Some(answer)
}

/// The servers of one file.
struct Servers {
    step: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Servers {
    fn start(host: &Host, scenario: &Arc<Scenario>) -> Self {
        let (step, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        // What a file answers but once.
        let once = scenario.steps.iter().filter_map(|step| match &step.action {
            Action::Reply(entry) => Some(entry.clone()),
            _ => None,
        });
        let once = Arc::new(Mutex::new(once.collect::<Vec<Entry>>()));
        let mut threads = Vec::new();
        for address in addresses(scenario) {
            let place = SocketAddr::new(address, 53);
            // The kernel may hold on to a port of the last file's for a moment.
            let mut bound = None;
            within(10, || {
                bound = host.inside(|| Some((UdpSocket::bind(place).ok()?, TcpListener::bind(place).ok()?)));
                bound.is_some()
            });
            let Some((udp, tcp)) = bound else { panic!("{place} cannot be bound") };
            udp.set_read_timeout(Some(Duration::from_millis(20))).expect("it is a socket");
            tcp.set_nonblocking(true).expect("it is a socket");
            let (scenario, step, over, once) = (scenario.clone(), step.clone(), over.clone(), once.clone());
            threads.push(std::thread::spawn(move || {
                let say = |bytes: &[u8], over| {
                    let asked = Message::parse(bytes).ok()?;
                    let now = step.load(Ordering::SeqCst);
                    if let Some(entry) = scenario.answer(now, place, &asked, over) {
                        return entry.reply_to(&asked);
                    }
                    let mut once = once.lock().expect("nobody panics");
                    if let Some(place) = once.iter().position(|entry| entry.answers(&asked, over)) {
                        return once.remove(place).reply_to(&asked);
                    }
                    let failed = Entry {
                        flags: vec!["QR".into(), "SERVFAIL".into()],
                        adjust: vec!["copy_id".into(), "copy_query".into()],
                        ..Entry::default()
                    };
                    failed.reply_to(&asked)
                };
                let mut buffer = [0; 4096];
                while !over.load(Ordering::SeqCst) {
                    if let Ok((length, from)) = udp.recv_from(&mut buffer)
                        && let Some(reply) = say(&buffer[..length], Over::Udp)
                    {
                        let _ = udp.send_to(&reply, from);
                    }
                    if let Ok((mut stream, _)) = tcp.accept() {
                        let _ = stream.set_nonblocking(false);
                        let _ = stream.set_read_timeout(Some(Duration::from_millis(300)));
                        let mut length = [0; 2];
                        while stream.read_exact(&mut length).is_ok() {
                            let mut frame = vec![0; usize::from(u16::from_be_bytes(length))];
                            let Ok(()) = stream.read_exact(&mut frame) else { break };
                            let Some(reply) = say(&frame, Over::Tcp) else { break };
                            let mut bytes = u16::try_from(reply.len()).unwrap_or_default().to_be_bytes().to_vec();
                            bytes.extend(reply);
                            if stream.write_all(&bytes).is_err() {
                                break;
                            }
                        }
                    }
                }
            }));
        }
        Self { step, over, threads }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

type Records = HashSet<(Name, u16, Vec<u8>)>;

/// Says what differs between what came and what the file wants.
fn differs(wanted: &Entry, bytes: &[u8]) -> Option<String> {
    let Ok(came) = Message::parse(bytes) else { return Some("an answer that cannot be read".into()) };
    let records = |records: &[Record]| -> Records {
        records.iter().map(|one| (one.name.clone(), one.rtype, comparable(one))).collect()
    };
    let all = ["rcode", "flags", "answer", "authority", "additional"];
    let parts = wanted.matches.iter().flat_map(|word| if word == "all" { all.to_vec() } else { vec![word.as_str()] });
    for part in parts {
        let wrong = match part {
            "rcode" if came.rcode != wanted.rcode() => Some(format!("rcode {} not {}", came.rcode, wanted.rcode())),
            "flags" => {
                let ours = [
                    ("QR", came.response),
                    ("AA", came.authoritative),
                    ("TC", came.truncated),
                    ("RD", came.recursion_desired),
                    ("RA", came.recursion_available),
                    ("AD", came.authentic),
                    ("CD", came.checking_disabled),
                ];
                let differ: Vec<_> = ours.iter().filter(|(flag, set)| wanted.has(flag) != *set).collect();
                (!differ.is_empty()).then(|| format!("flags {differ:?}"))
            }
            "answer" => compare("answer", &records(&came.answer), &records(&wanted.answer)),
            "authority" => compare("authority", &records(&came.authority), &records(&wanted.authority)),
            "additional" => compare("additional", &records(&came.additional), &records(&wanted.additional)),
            _ => None,
        };
        if wrong.is_some() {
            return wrong;
        }
    }
    None
}

fn compare(what: &str, ours: &Records, theirs: &Records) -> Option<String> {
    let names = |set: HashSet<&(Name, u16, Vec<u8>)>| -> Vec<String> {
        set.iter().map(|(name, rtype, _)| format!("{name} {rtype}")).collect()
    };
    let (more, less) = (names(ours.difference(theirs).collect()), names(theirs.difference(ours).collect()));
    (!more.is_empty() || !less.is_empty()).then(|| format!("{what}: too much {more:?}, missing {less:?}"))
}

/// Names in data compare without case.
fn comparable(record: &Record) -> Vec<u8> {
    match record.rtype {
        rtype::NS | rtype::CNAME | rtype::SOA | rtype::MX | rtype::PTR => record.rdata.to_ascii_lowercase(),
        _ => record.rdata.to_vec(),
    }
}
