use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::{
    keep::Keeper,
    retention::Oldest,
    row::{Row, first_of, time_of},
    schema::Check,
    store::is_full,
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

fn history(config: Config, state: &Path, journal: &Journal) -> History {
    History::new(config, state, journal.clone(), addresses(), Clock::believed(), &Metrics::new())
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
        let history = Arc::new(history(config, state, &journal));
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
    let mut store = Store::open(&path, Storage::Disk, Check::Whole).unwrap();
    store.spool(&rows).unwrap();
    // The last line is cut.
    let spool = state.path().join("history.spool");
    let mut bytes = std::fs::read(&spool).unwrap();
    bytes.extend_from_slice(b"123\t1\tcach");
    std::fs::write(&spool, &bytes).unwrap();
    drop(store);

    let mut store = Store::open(&path, Storage::Disk, Check::Whole).unwrap();
    // The end came between the commit and the emptied spool.
    let left = store.take_left();
    store.fold(&left).unwrap();
    store.fold(&left).unwrap();

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

    let mut store = Store::open(&path, Storage::Disk, Check::Whole).unwrap();
    store.fold(&[row(NOON, "a.example", "x", "cached")]).unwrap();

    assert!(state.path().join("history.db.corrupt").exists());
    assert_eq!(search::search(store.connection_mut(), &Filter::default()).unwrap().entries.len(), 1);
}

#[test]
fn only_its_owner_may_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let state = tempfile::tempdir().unwrap();
    let mut store = Store::open(&state.path().join("history.db"), Storage::Disk, Check::Whole).unwrap();
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
    let mut store = Store::open(Path::new("unused"), Storage::Memory, Check::Whole).unwrap();
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
    let mut store = Store::open(Path::new("unused"), Storage::Memory, Check::Whole).unwrap();
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
    store.forget(&config(Storage::Memory), Some(now)).unwrap();
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
    let mut store = Store::open(Path::new("unused"), Storage::Memory, Check::Whole).unwrap();
    let rows: Vec<Row> = (0..20_000)
        .map(|at| row(NOON + at * 10_000, &format!("host{at}.with.a.long.name.example"), "a", "cached"))
        .collect();
    store.fold(&rows).unwrap();
    let now = moment(NOON + 20_000 * 10_000);
    let before = store.bytes();

    let old = Config { keep: Duration::from_secs(86_400), ..config(Storage::Memory) };
    store.forget(&old, Some(now)).unwrap();
    let kept = store.bytes();
    let small = Config { size: kept / 2, ..old };
    store.forget(&small, Some(now)).unwrap();

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

fn found(store: &mut Store) -> Vec<search::Entry> {
    search::search(store.connection_mut(), &Filter { limit: Some(1000), ..Filter::default() }).unwrap().entries
}

#[test]
fn a_flood_within_the_hour_stays_within_the_size() {
    let journal = Journal::default();
    journal.listen(true);
    let small = Config { size: 1 << 20, ..config(Storage::Memory) };
    let history = history(small.clone(), Path::new("unused"), &journal);
    let mut keeper = Keeper::new(&history);

    for round in 0..8_i64 {
        for at in 0..6_000 {
            let label = format!("{:>63}", round * 6_000 + at).replace(' ', "x");
            let name = [b"\x3f", label.as_bytes(), b"\0"].concat();
            journal.report(&question(NOON + round, &name));
        }
        keeper.work(false);
    }

    let status = history.status();
    assert!(status.bytes <= small.size, "{status:?}");
    assert!(status.bytes > small.size / 4, "the newest is kept: {status:?}");
    assert_eq!((status.dropped, status.problem), (0, None));
}

#[test]
fn a_name_takes_no_more_than_a_plain_one_can() {
    let label = [&[63][..], &[0; 63]].concat();
    let name = [label.repeat(3), vec![0]].concat();

    let row = Row::new(&question(NOON, &name), &addresses(), Privacy::Everything, &mut 0);

    assert_eq!(row.name.len(), 255);
}

#[test]
fn whoever_reads_while_the_disk_fails_keeps_nobody_awake() {
    let state = tempfile::tempdir().unwrap();
    let journal = Journal::default();
    let history = history(config(Storage::Disk), &state.path().join("gone"), &journal);
    let mut keeper = Keeper::new(&history);
    let is_awake = |history: &History| {
        let asked = history.asked.lock().unwrap();
        asked.0 != asked.1
    };

    history.asked.lock().unwrap().0 += 1;
    keeper.work(false);
    assert!(!is_awake(&history), "after the failure");
    history.asked.lock().unwrap().0 += 1;
    keeper.work(false);

    assert!(!is_awake(&history), "while the disk rests");
}

#[test]
fn what_comes_while_the_disk_rests_is_spooled_when_it_is_there_again() {
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().join("late");
    let journal = Journal::default();
    journal.listen(true);
    let history = history(config(Storage::Disk), &folder, &journal);
    let mut keeper = Keeper::new(&history);
    journal.report(&question(NOON, b"\x05first\0"));
    keeper.work(false);
    journal.report(&question(NOON, b"\x06second\0"));
    keeper.work(false);
    std::fs::create_dir(&folder).unwrap();

    keeper.rested();
    keeper.work(false);

    let spool = std::fs::read_to_string(folder.join("history.spool")).unwrap();
    assert_eq!(spool.lines().map(|line| line.rsplit('\t').next().unwrap()).collect::<Vec<_>>(), ["first", "second"]);
}

#[test]
fn a_store_opens_though_what_was_left_cannot_be_folded_yet() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join("history.db");
    let mut store = Store::open(&path, Storage::Disk, Check::Whole).unwrap();
    store.spool(&[row(NOON, "a.example", "x", "cached")]).unwrap();
    drop(store);
    let shell = rusqlite::Connection::open(&path).unwrap();
    shell.execute_batch("BEGIN IMMEDIATE").unwrap();

    let mut store = Store::open(&path, Storage::Disk, Check::Whole).unwrap();
    let left = store.take_left();
    shell.execute_batch("ROLLBACK").unwrap();
    store.fold(&left).unwrap();

    assert_eq!(found(&mut store).len(), 1);
}

#[test]
fn a_full_disk_costs_the_oldest_part_and_then_takes_the_newest() {
    let state = tempfile::tempdir().unwrap();
    let mut store = Store::open(&state.path().join("history.db"), Storage::Disk, Check::Whole).unwrap();
    let rows = |from: i64| -> Vec<Row> {
        (from..from + 4_000).map(|at| row(NOON + at * 1000, &format!("host{at}.example"), "a", "cached")).collect()
    };
    store.fold(&rows(0)).unwrap();
    let pages: i64 = store.connection_mut().query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    store.connection_mut().pragma_update(None, "max_page_count", pages).unwrap();
    let newest = [row(NOON + 9_000_000, "newest.example", "a", "cached")];
    store.spool(&rows(4_000)).unwrap();

    let error = store.fold(&rows(4_000)).unwrap_err();
    store.relieve(Oldest::Goes).unwrap();
    store.fold(&newest).unwrap();

    assert!(is_full(&error), "{error}");
    assert_eq!(found(&mut store)[0].name, "newest.example");
    let oldest: i64 = store.connection_mut().query_row("SELECT min(id) FROM question", [], |row| row.get(0)).unwrap();
    assert_eq!(time_of(oldest), NOON + 201_000);
    assert_eq!(std::fs::metadata(state.path().join("history.spool")).unwrap().len(), 0);
}

#[test]
fn what_is_folded_is_on_the_disk_before_it_leaves_the_spool() {
    let state = tempfile::tempdir().unwrap();
    let mut store = Store::open(&state.path().join("history.db"), Storage::Disk, Check::Whole).unwrap();

    let synchronous: i64 = store.connection_mut().query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap();

    assert_eq!(synchronous, 2, "FULL");
}

#[test]
fn a_clock_that_was_ahead_and_set_back_hides_and_sums_nothing() {
    let mut store = Store::open(Path::new("unused"), Storage::Memory, Check::Whole).unwrap();
    let mut last = 0;
    let (ahead, back) = (NOON + 5000 * DAY, NOON);
    let mut made = |at| Row::new(&question(at, b"\x01a\0"), &addresses(), Privacy::Everything, &mut last);
    let rows = [made(ahead), made(back), made(back), made(back + DAY)];
    store.fold(&rows).unwrap();
    store
        .forget(&Config { keep: Duration::from_secs(u64::MAX / 2000), ..config(Storage::Memory) }, Some(moment(ahead)))
        .unwrap();
    store.connection_mut().execute("DELETE FROM day", []).unwrap();

    store.forget(&config(Storage::Memory), Some(moment(back + 2 * DAY))).unwrap();

    let times: Vec<i64> = found(&mut store).iter().map(|entry| entry.at).collect();
    assert_eq!(times, [ahead, back + DAY, back, back]);
    let days: i64 =
        store.connection_mut().query_row("SELECT count(DISTINCT slot) FROM day", [], |row| row.get(0)).unwrap();
    assert_eq!(days, 2, "the true days are summed");
}

#[test]
fn nothing_is_too_old_by_a_clock_that_cannot_be_right() {
    let state = tempfile::tempdir().unwrap();
    let journal = Journal::default();
    journal.listen(true);
    let clock = Clock::with_floor(state.path());
    let floor = i64::try_from(clock.floor()).unwrap() * 1000;
    clock.doubt(1);
    let history =
        History::new(config(Storage::Memory), state.path(), journal.clone(), addresses(), clock, &Metrics::new());
    let mut keeper = Keeper::new(&history);
    // Both would be forgotten by the present time, one is of 1970.
    journal.report(&question(5, b"\x01a\0"));
    *history.store.lock().unwrap() =
        Store::open(Path::new("unused"), Storage::Memory, Check::Whole).map_err(|_| String::new());
    history.store.lock().unwrap().as_mut().unwrap().fold(&[row(NOON - 3000 * DAY, "old", "x", "cached")]).unwrap();

    history.asked.lock().unwrap().0 += 1;
    keeper.work(false);

    let entries = found(history.store.lock().unwrap().as_mut().unwrap());
    assert_eq!(entries.iter().map(|entry| entry.at).collect::<Vec<_>>(), [floor, time_of(0)]);
}

#[test]
fn two_records_of_one_number_are_both_kept_and_each_only_once() {
    let mut store = Store::open(Path::new("unused"), Storage::Memory, Check::Whole).unwrap();
    let (before, after) = (row(NOON, "before", "x", "cached"), row(NOON, "after", "x", "cached"));
    store.fold(std::slice::from_ref(&before)).unwrap();

    for _ in 0..2 {
        store.fold(&[before.clone(), after.clone()]).unwrap();
    }

    assert_eq!(found(&mut store).iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["after", "before"]);
    assert_eq!(store.last(moment(NOON)).unwrap(), first_of(NOON) + 1);
    assert_eq!(store.last(moment(NOON - 1)).unwrap(), 0, "another time is not gone on with");
}

#[test]
fn numbers_that_were_forgotten_midway_are_not_given_to_others() {
    let mut store = Store::open(Path::new("unused"), Storage::Memory, Check::Whole).unwrap();
    store.fold(&[row(NOON, "gone.example", "x", "cached")]).unwrap();
    // Names are forgotten, then it fails.
    store
        .connection_mut()
        .execute_batch(
            "CREATE TRIGGER fails BEFORE DELETE ON client BEGIN SELECT RAISE(ABORT, 'a disk that fails'); END;",
        )
        .unwrap();
    let now = moment(NOON + 91 * DAY);

    store.forget(&config(Storage::Memory), Some(now)).unwrap_err();
    store.connection_mut().execute_batch("DROP TRIGGER fails").unwrap();
    store
        .fold(&[
            row(NOON + 91 * DAY, "new.example", "y", "cached"),
            row(NOON + 91 * DAY + 1, "gone.example", "x", "cached"),
        ])
        .unwrap();

    assert_eq!(
        found(&mut store).iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(),
        ["gone.example", "new.example"]
    );
}

proptest! {
    /// Sums agree with the records that they were made of.
    #[test]
    fn sums_are_what_the_records_say(rows in prop::collection::vec((0_i64..5_000_000, 0_usize..4, 0_usize..3), 1..60)) {
        let mut store = Store::open(Path::new("unused"), Storage::Memory, Check::Whole).unwrap();
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
