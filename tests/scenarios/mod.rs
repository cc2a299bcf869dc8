//! A player for resolver scenario files, in memory and with the clock set.
//!
//! `SCENARIOS=FOLDER cargo test scenarios -- --nocapture` plays another folder.

mod file;
mod records;

use std::{collections::HashSet, net::SocketAddr, path::PathBuf, time::Duration};

use file::{Action, Entry, Over, Scenario};
use hearthgate::dns::resolver::{
    Answer, Asked, Config, Contact, Fallback, Forward, Now, Output, Resolver, Support,
    anchor::Anchors,
    name::Name,
    rrset::Security,
    signature::Ds,
    wire::{Message, Question, Record, rtype},
};

/// Cases that give another answer than the file wants, each with the reason.
const OTHERWISE: &[(&str, &str)] = &[];

/// What came of one case.
struct Played {
    /// What differed, if anything.
    wrong: Option<String>,
    /// What was asked and not scripted.
    unscripted: Vec<String>,
}

#[test]
fn scenarios_of_others_are_answered_as_they_want() {
    let folder = match std::env::var_os("SCENARIOS") {
        Some(folder) => PathBuf::from(folder),
        None => crate::data().join("scenarios"),
    };
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("SKIPPED: no scenarios in {}", folder.display());
        return;
    };
    let Outcome { cases, right, scripted, failures } = play_all(entries);
    for failure in &failures {
        println!("{failure}");
    }
    println!("{right} of {cases} cases right, {scripted} without an unscripted question");
    let named = |line: &str, name: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', ':']));
    let unexplained: Vec<&String> =
        failures.iter().filter(|line| !OTHERWISE.iter().any(|(name, _)| named(line, name))).collect();
    if std::env::var_os("SCENARIOS").is_none() && std::env::var_os("SCENARIO").is_none() {
        assert!(unexplained.is_empty(), "{unexplained:#?}");
        let outdated: Vec<_> =
            OTHERWISE.iter().filter(|(name, _)| !failures.iter().any(|line| named(line, name))).collect();
        assert!(outdated.is_empty(), "answered as the files want after all: {outdated:?}");
    }
}

/// What came of a folder.
#[derive(Default)]
struct Outcome {
    cases: usize,
    right: usize,
    scripted: usize,
    failures: Vec<String>,
}

fn play_all(entries: std::fs::ReadDir) -> Outcome {
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "rpl"));
    paths.sort();
    if let Ok(only) = std::env::var("SCENARIO") {
        paths.retain(|path| path.file_stem().is_some_and(|stem| stem.to_string_lossy() == only));
    }
    let (mut cases, mut right, mut scripted) = (0, 0, 0);
    let mut failures = Vec::new();
    for path in &paths {
        let text = std::fs::read_to_string(path).expect("a listed file can be read");
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let scenario = match file::parse(&text) {
            Ok(scenario) => scenario,
            Err(error) => {
                failures.push(format!("{name}: {error}"));
                cases += 1;
                continue;
            }
        };
        let modes = match scenario.get("query-minimization") {
            Some(value) => vec![value.starts_with("on") || value.starts_with("yes")],
            None => vec![true, false],
        };
        for minimise in modes {
            cases += 1;
            let played = play(&scenario, minimise);
            scripted += usize::from(played.unscripted.is_empty());
            match played.wrong {
                None => {
                    right += 1;
                    if !played.unscripted.is_empty() && std::env::var_os("SCENARIO_UNSCRIPTED").is_some() {
                        println!("{name} (minimise {minimise}): right, not scripted: {}", played.unscripted.join(", "));
                    }
                }
                Some(wrong) => failures.push(format!(
                    "{name} (minimise {minimise}): {wrong}{}",
                    if played.unscripted.is_empty() {
                        String::new()
                    } else {
                        format!("; not scripted: {}", played.unscripted[..played.unscripted.len().min(4)].join(", "))
                    }
                )),
            }
        }
    }

    Outcome { cases, right, scripted, failures }
}

#[test]
fn our_own_scenarios_are_answered_as_they_want() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/own");

    let outcome = play_all(std::fs::read_dir(folder).expect("our own files are there"));

    assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
    assert!(outcome.cases > 0 && outcome.scripted == outcome.cases, "something was asked that nobody scripted");
}

fn configure(scenario: &Scenario, minimise: bool) -> (Config, u64) {
    let wall = scenario
        .get("val-override-date")
        .and_then(records::time)
        .or_else(|| scenario.get("val-override-timestamp")?.parse().ok())
        .map_or(1_500_000_000, u64::from);
    let mut anchors = Anchors::default();
    for line in scenario.all("trust-anchor") {
        let Some(record) = records::record(line) else { continue };
        match record.rtype {
            rtype::DS => anchors.add_ds(record.name, Ds::parse(&record.rdata).expect("an anchor is whole")),
            _ => anchors.add_key(record.name, &record.rdata),
        }
    }
    let address = |text: &str| text.split(['@', ' ', '\t']).next().and_then(|text| text.parse().ok());
    let hints = scenario.all("stub-addr").filter_map(address).collect();
    let forward: Vec<Contact> = scenario
        .all("forward-addr")
        .filter_map(address)
        .map(|address| Contact::Plain(SocketAddr::new(address, 53)))
        .collect();
    let config = Config {
        hints: vec![(Name::parse("k.root-servers.net").expect("a name"), hints)],
        anchors,
        negative_anchors: scenario.all("domain-insecure").filter_map(Name::parse).map(|name| (name, None)).collect(),
        forward: if forward.is_empty() {
            Vec::new()
        } else {
            vec![Forward { zone: Name::root(), servers: forward, fallback: Fallback::Nothing }]
        },
        minimise,
        case_randomisation: true,
        support: Support { sha1: true, short_keys: true },
        ipv4: scenario.flag("do-ip4", true),
        ipv6: scenario.flag("do-ip6", true),
        special_servers: true,
        prefetch: false,
        ..Config::default()
    };
    (config, wall)
}

struct Player<'a> {
    scenario: &'a Scenario,
    resolver: Resolver,
    now: Now,
    one_shot: Vec<&'a Entry>,
    played: Played,
    trace: bool,
}

fn play(scenario: &Scenario, minimise: bool) -> Played {
    let (config, wall) = configure(scenario, minimise);
    let mut seed = 1_u64;
    let resolver = Resolver::new(config, move |bytes| {
        for byte in bytes {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = seed.to_be_bytes()[1];
        }
    });
    let mut player = Player {
        scenario,
        resolver,
        now: Now { since_start: Duration::from_secs(1000), wall },
        one_shot: scenario
            .steps
            .iter()
            .filter_map(|step| match &step.action {
                Action::Reply(entry) => Some(entry),
                _ => None,
            })
            .collect(),
        played: Played { wrong: None, unscripted: Vec::new() },
        trace: std::env::var_os("SCENARIO_TRACE").is_some(),
    };
    let mut answered = None;
    for step in &scenario.steps {
        match &step.action {
            Action::Query(entry) => answered = player.ask(entry, step.number).map(|answer| (entry, answer)),
            Action::CheckAnswer(expected) => {
                let Some((asked, answer)) = &answered else {
                    player.played.wrong = Some(format!("step {}: no answer", step.number));
                    return player.played;
                };
                if let Some(wrong) = differs(expected, asked, answer) {
                    player.played.wrong = Some(format!("step {}: {wrong}", step.number));
                    return player.played;
                }
            }
            Action::TimePasses(seconds) => player.pass(Duration::from_secs(*seconds)),
            Action::Reply(_) => {}
            Action::Other(action) => {
                player.played.wrong = Some(format!("step {}: unknown action {action}", step.number));
                return player.played;
            }
        }
    }
    player.played
}

impl Player<'_> {
    fn pass(&mut self, time: Duration) {
        let until = self.now.since_start + time;
        while let Some(next) = self.resolver.next_timeout().filter(|next| *next < until) {
            self.advance(next);
            self.resolver.handle_timeout(self.now);
            self.perform(0, None);
        }
        self.advance(until);
    }

    fn advance(&mut self, to: Duration) {
        let to = to.max(self.now.since_start);
        self.now.wall += to.as_secs() - self.now.since_start.as_secs();
        self.now.since_start = to;
    }

    fn ask(&mut self, entry: &Entry, step: u64) -> Option<std::sync::Arc<Answer>> {
        let (name, rtype) = entry.question.clone()?;
        let asked = Asked { question: Question { name, rtype }, checking_disabled: entry.has("CD") };
        let ticket = self.resolver.ask(asked, self.now);
        for _ in 0..2000 {
            if let Some(answer) = self.perform(step, Some(ticket)) {
                return Some(answer);
            }
            let next = self.resolver.next_timeout()?;
            self.advance(next);
            self.resolver.handle_timeout(self.now);
        }
        None
    }

    fn perform(
        &mut self,
        step: u64,
        wanted: Option<hearthgate::dns::resolver::Ticket>,
    ) -> Option<std::sync::Arc<Answer>> {
        let mut found = None;
        while let Some(output) = self.resolver.next_output() {
            match output {
                Output::Send { exchange, server, tcp, message } => {
                    let asked = Message::parse(&message).expect("we write messages");
                    let what = asked
                        .question
                        .as_ref()
                        .map(|question| format!("{} {}", question.name, question.rtype))
                        .unwrap_or_default();
                    let over = if tcp { Over::Tcp } else { Over::Udp };
                    let reply = match self.scenario.answer(step, server, &asked, over) {
                        Some(entry) => entry.reply_to(&asked),
                        None => match self.one_shot.iter().position(|entry| entry.answers(&asked, over)) {
                            Some(place) => self.one_shot.remove(place).reply_to(&asked),
                            None => {
                                self.played.unscripted.push(format!("{what} of {}", server.ip()));
                                let refused = Entry {
                                    flags: vec!["QR".into(), "SERVFAIL".into()],
                                    adjust: vec!["copy_id".into(), "copy_query".into()],
                                    ..Entry::default()
                                };
                                refused.reply_to(&asked)
                            }
                        },
                    };
                    if self.trace {
                        let said = reply.as_ref().map(|reply| format!("{} bytes", reply.len()));
                        println!("  step {step}: {what} of {server}{}: {said:?}", if tcp { " over TCP" } else { "" });
                    }
                    if let Some(reply) = reply {
                        self.resolver.handle_message(exchange, &reply, self.now);
                    }
                }
                Output::Cancel(_) | Output::Explained(..) => {}
                Output::SendEncrypted { .. } => unreachable!("no server is encrypted"),
                Output::Answer(ticket, answer) => {
                    if Some(ticket) == wanted {
                        found = Some(answer);
                    }
                }
            }
        }
        found
    }
}

/// Says what differs between the answer that a client of the resolver gets and what the file wants.
fn differs(expected: &Entry, asked: &Entry, answer: &Answer) -> Option<String> {
    let dnssec = asked.has("DO");
    let section = |placed: &[hearthgate::dns::resolver::Placed]| -> HashSet<(Name, u16, Vec<u8>)> {
        let mut records = HashSet::new();
        for set in placed.iter().map(|placed| &placed.set) {
            let wanted = asked.question.as_ref().is_some_and(|(_, rtype)| *rtype == set.rtype);
            if dnssec || wanted || !matches!(set.rtype, rtype::NSEC | rtype::NSEC3 | rtype::DS | rtype::DNSKEY) {
                records.extend(set.data.iter().map(|data| (set.name.clone(), set.rtype, comparable(set.rtype, data))));
            }
            if dnssec {
                records.extend(set.signatures.iter().map(|data| (set.name.clone(), rtype::RRSIG, data.to_vec())));
            }
        }
        records
    };
    let wanted = |records: &[Record]| -> HashSet<(Name, u16, Vec<u8>)> {
        records
            .iter()
            .map(|record| (record.name.clone(), record.rtype, comparable(record.rtype, &record.rdata)))
            .collect()
    };
    let all = ["rcode", "flags", "answer", "authority", "additional"];
    let parts: Vec<&str> = expected
        .matches
        .iter()
        .flat_map(|word| if word == "all" { all.to_vec() } else { vec![word.as_str()] })
        .collect();
    for part in parts {
        let same = match part {
            "rcode" => (answer.rcode == expected.rcode()).then_some(()).ok_or(format!(
                "rcode {} not {}, {:?}",
                answer.rcode,
                expected.rcode(),
                answer.why
            )),
            "flags" => {
                let secure = answer.security == Security::Secure
                    && answer.rcode != 2
                    && !asked.has("CD")
                    && (asked.has("DO") || asked.has("AD"));
                let ours: HashSet<&str> =
                    [("QR", true), ("RA", true), ("RD", asked.has("RD")), ("AD", secure), ("CD", asked.has("CD"))]
                        .into_iter()
                        .filter(|(_, set)| *set)
                        .map(|(name, _)| name)
                        .collect();
                let theirs: HashSet<&str> =
                    ["QR", "AA", "TC", "RD", "RA", "AD", "CD"].into_iter().filter(|flag| expected.has(flag)).collect();
                (ours == theirs).then_some(()).ok_or(format!("flags {ours:?} not {theirs:?}"))
            }
            "answer" => compare("answer", &section(&answer.answer), &wanted(&expected.answer)),
            "authority" => compare("authority", &section(&answer.authority), &wanted(&expected.authority)),
            "additional" => compare("additional", &HashSet::new(), &wanted(&expected.additional)),
            _ => Ok(()),
        };
        if let Err(wrong) = same {
            return Some(wrong);
        }
    }
    None
}

fn compare(
    what: &str,
    ours: &HashSet<(Name, u16, Vec<u8>)>,
    theirs: &HashSet<(Name, u16, Vec<u8>)>,
) -> Result<(), String> {
    let names = |set: HashSet<&(Name, u16, Vec<u8>)>| -> Vec<String> {
        set.iter().map(|(name, rtype, _)| format!("{name} {rtype}")).collect()
    };
    let (more, less) = (names(ours.difference(theirs).collect()), names(theirs.difference(ours).collect()));
    if more.is_empty() && less.is_empty() {
        Ok(())
    } else {
        Err(format!("{what}: too much {more:?}, missing {less:?}"))
    }
}

/// Names in data compare without case.
fn comparable(kind: u16, data: &[u8]) -> Vec<u8> {
    if matches!(kind, rtype::NS | rtype::CNAME | rtype::SOA | rtype::MX | rtype::PTR) {
        data.to_ascii_lowercase()
    } else {
        data.to_vec()
    }
}
