use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::{
    row::{first_of, time_of},
    *,
};
use crate::{event::Question, origin::NetworkId, supervise};

/// Midday of 10 November 2026, in milliseconds since 1970.
const NOON: i64 = 1_794_312_000_000;
const DAY: i64 = 86_400_000;

fn config(storage: Storage) -> Config {
    Config { storage, keep: Duration::from_secs(90 * 86_400), size: 256 << 20, privacy: Privacy::Everything }
}

fn moment(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap()
}

fn row(at: i64, name: &str, client: &str, outcome: &str) -> Row {
    let rule = if outcome == "blocked" { "ads" } else { "" };
    Row {
        id: first_of(at),
        name: name.into(),
        client: client.into(),
        qtype: 1,
        outcome: outcome.into(),
        transport: "udp".into(),
        rule: rule.into(),
        took: 0,
    }
}

fn question<'a>(at: i64, name: &'a [u8]) -> Question<'a> {
    Question {
        at,
        origin: Origin::Lan(NetworkId::MAIN),
        client: Ipv4Addr::new(192, 0, 2, 7).into(),
        name,
        qtype: 28,
        outcome: "resolved",
        transport: "tls",
        rule: "",
        took: 1500,
    }
}

fn addresses() -> Who {
    Arc::new(|_, address| address.to_string())
}

/// A history that runs until it is dropped.
struct Running {
    history: Arc<History>,
    journal: Journal,
    stopper: supervise::Stopper,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    fn start(config: Config, state: &Path) -> Self {
        let journal = Journal::default();
        let history = History::new(config, state, journal.clone(), addresses(), &Metrics::new());
        let history = Arc::new(history);
        let (stopper, stop) = supervise::stop();
        let works = history.clone();
        let thread = std::thread::spawn(move || works.run(&stop).unwrap());
        while !journal.is_wanted() {
            std::thread::yield_now();
        }
        Self { history, journal, stopper, thread: Some(thread) }
    }

    fn names(&self, filter: &Filter) -> Vec<String> {
        let found = self.history.search(filter).unwrap();
        found.entries.into_iter().map(|entry| entry.name).collect()
    }

    /// Reads until there are so many.
    fn wait(&self, count: usize) {
        for _ in 0..1000 {
            if self
                .history
                .search(&Filter { limit: Some(1000), ..Filter::default() })
                .is_ok_and(|found| found.entries.len() == count)
            {
                return;
            }
        }
        panic!("there were never {count} records");
    }

    fn end(mut self) {
        self.stopper.advance(Phase::Drain);
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn what_is_reported_can_be_read_at_once_and_after_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let running = Running::start(config(Storage::Disk), state.path());
    running.journal.report(&question(NOON, b"\x03WWW\x07example\0"));
    running.journal.report(&Question { outcome: "blocked", rule: "ads", ..question(NOON, b"\x07tracker\0") });

    running.wait(2);
    let found = running.history.search(&Filter::default()).unwrap();
    running.end();
    let again = Running::start(config(Storage::Disk), state.path());
    again.wait(2);

    let entry = &found.entries[1];
    assert_eq!((entry.name.as_str(), entry.client.as_str()), ("www.example", "192.0.2.7"));
    assert_eq!((entry.qtype, entry.outcome.as_str(), entry.transport.as_str()), (28, "resolved", "tls"));
    assert_eq!(entry.at, NOON);
    assert!(entry.took.abs_diff(1500) < 300, "{}", entry.took);
    assert_eq!(found.entries[0].rule, "ads");
    assert_eq!(again.names(&Filter::default()), ["tracker", "www.example"]);
    again.end();
}

#[test]
fn what_was_spooled_when_the_process_ended_is_found_and_counted_once() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join("history.db");
    let rows = [row(NOON, "a.example", "x", "cached"), row(NOON + 1, "b.example", "x", "cached")];
    let mut store = Store::open(&path, Storage::Disk).unwrap();
    store.spool(&rows).unwrap();
    // The last line is cut.
    let spool = state.path().join("history.spool");
    let mut bytes = std::fs::read(&spool).unwrap();
    bytes.extend_from_slice(b"123\t1\tcach");
    std::fs::write(&spool, &bytes).unwrap();
    drop(store);

    let mut store = Store::open(&path, Storage::Disk).unwrap();
    // The end came between the commit and the emptied spool.
    store.fold(&rows).unwrap();

    let found = search::search(store.connection_mut(), &Filter::default()).unwrap();
    let summary = figures::summary(store.connection_mut(), moment(NOON), moment(NOON + 1)).unwrap();
    assert_eq!(found.entries.len(), 2);
    assert_eq!(summary.questions, 2);
    assert_eq!(std::fs::metadata(&spool).unwrap().len(), 0);
}

#[test]
fn a_file_that_is_no_database_is_set_aside() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join("history.db");
    std::fs::write(&path, "no database at all, but long enough to look like the head of one ".repeat(100)).unwrap();

    let mut store = Store::open(&path, Storage::Disk).unwrap();
    store.fold(&[row(NOON, "a.example", "x", "cached")]).unwrap();

    assert!(state.path().join("history.db.corrupt").exists());
    assert_eq!(search::search(store.connection_mut(), &Filter::default()).unwrap().entries.len(), 1);
}

#[test]
fn only_its_owner_may_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let state = tempfile::tempdir().unwrap();
    let mut store = Store::open(&state.path().join("history.db"), Storage::Disk).unwrap();
    store.fold(&[row(NOON, "a.example", "x", "cached")]).unwrap();

    for file in std::fs::read_dir(state.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", file.path());
    }
}

#[test]
fn a_folder_that_takes_nothing_costs_records_and_says_so() {
    let state = tempfile::tempdir().unwrap();
    let running = Running::start(config(Storage::Disk), &state.path().join("gone"));
    for _ in 0..3 {
        running.journal.report(&question(NOON, b"\x01a\0"));
    }

    let answer = running.history.search(&Filter::default());

    assert!(matches!(answer, Err(Error::Closed(_))), "{answer:?}");
    assert!(running.history.status().problem.is_some());
    running.end();
}

#[test]
fn filters_let_through_what_they_say_a_page_at_a_time() {
    let mut store = Store::open(Path::new("unused"), Storage::Memory).unwrap();
    let rows: Vec<Row> = (0..300)
        .map(|at| {
            let (name, client) = (format!("host{at}.example"), format!("device{}", at % 3));
            row(NOON + at * 1000, &name, &client, if at % 5 == 0 { "blocked" } else { "cached" })
        })
        .collect();
    store.fold(&rows).unwrap();
    let mut search = |filter: &Filter| search::search(store.connection_mut(), filter).unwrap();

    let first = search(&Filter::default());
    let second = search(&Filter { before: first.next, ..Filter::default() });
    let blocked = Filter { outcome: Some("blocked".into()), client: Some("device0".into()), ..Filter::default() };
    let named = Filter { name: Some("HOST12".into()), ..Filter::default() };
    let of_list = Filter { rule: Some("ads".into()), limit: Some(1000), ..Filter::default() };
    let span = Filter { from: Some((NOON + 10_000) / 1000), to: Some((NOON + 20_000) / 1000), ..Filter::default() };

    assert_eq!(first.entries.len(), 100);
    assert_eq!(first.entries[0].name, "host299.example");
    assert_eq!(second.entries[0].name, "host199.example");
    assert_eq!(search(&blocked).entries.len(), 20);
    assert_eq!(search(&named).entries.len(), 11);
    assert_eq!(search(&of_list).entries.len(), 60);
    assert_eq!(search(&span).entries.len(), 10);
    assert!(search(&Filter { outcome: Some("unheard of".into()), ..Filter::default() }).entries.is_empty());
    assert!(search(&Filter { name: Some("%' OR 1".into()), ..Filter::default() }).entries.is_empty());
}

#[test]
fn sums_of_long_spans_come_from_days_that_were_summed() {
    let mut store = Store::open(Path::new("unused"), Storage::Memory).unwrap();
    for day in 0..5 {
        let at = NOON + day * DAY;
        store
            .fold(&[
                row(at, "often.example", "a", "cached"),
                row(at + 1, "often.example", "b", "resolved"),
                row(at + 2, "ads.example", "a", "blocked"),
            ])
            .unwrap();
    }
    let now = moment(NOON + 4 * DAY + 1000);
    store.forget(&config(Storage::Memory), now).unwrap();
    // Whatever is asked of the days that are over comes from their sums.
    store.connection_mut().execute("DELETE FROM question WHERE id < ?1", [first_of(NOON + 3 * DAY)]).unwrap();

    let summary = figures::summary(store.connection_mut(), moment(NOON - 1000), now).unwrap();

    let count = |what: &str, questions| Count { what: what.into(), questions };
    assert_eq!((summary.questions, summary.blocked), (15, 5));
    assert_eq!(summary.names, [count("often.example", 10)]);
    assert_eq!(summary.blocked_names, [count("ads.example", 5)]);
    assert_eq!(summary.clients, [count("a", 10), count("b", 5)]);
    assert_eq!(summary.timeline.iter().map(|moment| moment.questions).sum::<u64>(), 15);
    assert!(summary.timeline.len() <= 145);
}

#[test]
fn what_is_too_old_or_too_much_is_forgotten() {
    let mut store = Store::open(Path::new("unused"), Storage::Memory).unwrap();
    let rows: Vec<Row> = (0..20_000)
        .map(|at| row(NOON + at * 10_000, &format!("host{at}.with.a.long.name.example"), "a", "cached"))
        .collect();
    store.fold(&rows).unwrap();
    let now = moment(NOON + 20_000 * 10_000);
    let before = store.bytes();

    let old = Config { keep: Duration::from_secs(86_400), ..config(Storage::Memory) };
    store.forget(&old, now).unwrap();
    let kept = store.bytes();
    let small = Config { size: kept / 2, ..old };
    store.forget(&small, now).unwrap();

    let oldest: i64 = store.connection_mut().query_row("SELECT min(id) FROM question", [], |row| row.get(0)).unwrap();
    assert!(kept < before, "{kept} of {before}");
    assert!(store.bytes() <= small.size, "{} of {}", store.bytes(), small.size);
    assert!(time_of(oldest) > now.as_millisecond() - DAY);
    // The newest is still there.
    let newest = search::search(store.connection_mut(), &Filter::default()).unwrap();
    assert_eq!(newest.entries[0].name, "host19999.with.a.long.name.example");
}

#[test]
fn privacy_keeps_clients_or_names_out_of_the_file() {
    for (privacy, has_name, has_client) in
        [(Privacy::Everything, true, true), (Privacy::NoClients, true, false), (Privacy::Counts, false, false)]
    {
        let row = Row::new(&question(NOON, b"\x06secret\0"), &addresses(), privacy, &mut 0);

        assert_eq!((!row.name.is_empty(), !row.client.is_empty()), (has_name, has_client), "{privacy:?}");
        assert_eq!(row.outcome, "resolved");
    }
}

proptest! {
    /// Sums agree with the records that they were made of.
    #[test]
    fn sums_are_what_the_records_say(rows in prop::collection::vec((0_i64..5_000_000, 0_usize..4, 0_usize..3), 1..60)) {
        let mut store = Store::open(Path::new("unused"), Storage::Memory).unwrap();
        let mut last = 0;
        let rows: Vec<Row> = rows.into_iter().map(|(at, name, outcome)| {
            let mut row = row(NOON + at, &format!("n{name}"), "a", ["cached", "blocked", "resolved"][outcome]);
            row.id = row.id.max(last + 1);
            last = row.id;
            row
        }).collect();
        for part in rows.chunks(7) {
            store.fold(part).unwrap();
        }

        let summary = figures::summary(store.connection_mut(), moment(NOON), moment(NOON + 10 * DAY)).unwrap();

        let blocked = rows.iter().filter(|row| row.outcome == "blocked").count();
        prop_assert_eq!(summary.questions, rows.len() as u64);
        prop_assert_eq!(summary.blocked, blocked as u64);
        prop_assert_eq!(summary.outcomes.iter().map(|count| count.questions).sum::<u64>(), rows.len() as u64);
        prop_assert_eq!(summary.blocked_names.iter().map(|count| count.questions).sum::<u64>(), blocked as u64);
    }
}
