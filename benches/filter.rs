//! The table of blocked names: what it takes to build, what it keeps, and what a look-up costs.
//!
//! Of a million made-up names, of five million lines, and, with the data folder (`HEARTHGATE_DATA`, or
//! `../shared/data`), of the union of its lists, which is asked with popular names.

use std::{
    fs::{self, File},
    hint::black_box,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use hearthgate::dns::{
    Action, BlockAs, Config, Group, List, ListSource,
    filter::{GroupId, Policy, Verdict},
};

/// Look-ups are timed so many times, and the least disturbed one counts.
const TRIES: usize = 15;

fn main() {
    // What `cargo test --benches` gives is not meant for us.
    if std::env::args().any(|word| word == "--test") {
        return;
    }
    measure("a million names", |folder| Some(made_up(folder, 1_000_000)));
    measure("five million lines", |folder| Some(made_up(folder, 5_000_000)));
    if measure("all lists of the data folder", real).is_none() {
        println!("SKIPPED: no data folder, or no zstdcat");
    }
}

fn measure(what: &str, lists: impl FnOnce(&Path) -> Option<(Vec<List>, PathBuf)>) -> Option<()> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (lists, names) = lists(folder.path())?;
    let config = Config { state: folder.path().to_owned(), ..config(lists) };
    println!("\n{what}");
    let policy = build("build", &config, None);
    // Another list than before.
    let ListSource::Path(first) = &config.lists[0].source else { return None };
    let mut file = File::options().append(true).open(first).expect("it was just written");
    writeln!(file, "refreshed.example").expect("room in the folder");
    drop(file);
    let policy = build("refresh", &config, Some(policy));
    let began = Instant::now();
    let (again, _) = Policy::build(&config, None).expect("the table was kept");
    println!("  start      {:9.0} ms with the table that was kept", began.elapsed().as_secs_f64() * 1e3);
    drop(again);
    let asked = asked(&names);
    let (misses, hits): (Vec<_>, Vec<_>) =
        asked.iter().partition(|name| policy.verdict(GroupId::DEFAULT, name, 1) == Verdict::Pass);
    for (kind, names) in [("without a rule", &misses), ("with a rule", &hits)] {
        let time = (0..TRIES).map(|_| look_up(&policy, names)).min().unwrap_or_default();
        let each = time.as_secs_f64() * 1e9 / names.len().max(1) as f64;
        println!("  look-up    {each:9.0} ns for one of {} names {kind}", names.len());
    }
    Some(())
}

fn look_up(policy: &Policy, names: &[&Vec<u8>]) -> Duration {
    let began = Instant::now();
    for name in names {
        black_box(policy.verdict(GroupId::DEFAULT, black_box(name), 1));
    }
    began.elapsed()
}

/// Builds a policy and says what that took above what the process had: memory that is resident, files that are
/// mapped included.
fn build(what: &str, config: &Config, before: Option<Policy>) -> Policy {
    // Resets the peak (Linux, proc(5)).
    let _ = fs::write("/proc/self/clear_refs", "5");
    let (began, had) = (Instant::now(), memory("VmRSS:"));
    let (policy, _) = Policy::build(config, before.as_ref()).expect("the lists can be read");
    let (time, peak) = (began.elapsed(), memory("VmHWM:").saturating_sub(had) * 1024);
    let (names, bytes) = (policy.names() as f64, policy.bytes() as f64);
    println!(
        "  {what:10} {:9.0} ms, {:.1} MiB at the peak, {:.2} of the table",
        time.as_secs_f64() * 1e3,
        peak as f64 / 1048576.0,
        peak as f64 / bytes
    );
    println!("  {:10} {names:9} names, {:.1} MiB, {:.2} bytes a name", "", bytes / 1048576.0, bytes / names);
    policy
}

/// Unpacks the real lists, and a file of popular names to ask. Nothing passes through this process's memory,
/// which is measured.
fn real(folder: &Path) -> Option<(Vec<List>, PathBuf)> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data");
    let data = std::env::var_os("HEARTHGATE_DATA").map_or_else(|| PathBuf::from(beside), PathBuf::from);
    let mut lists = Vec::new();
    for file in fs::read_dir(data.join("blocklists")).ok()? {
        let packed = file.ok()?.path();
        let name = packed.file_name()?.to_str()?.to_owned();
        let path = folder.join(&name);
        unpack(&packed, &path)?;
        lists.push(list(name, path));
    }
    let names = folder.join("names.json");
    unpack(&data.join("top/misp-cloudflare-top100k.json.zst"), &names)?;
    Some((lists, names))
}

/// Reads the names that are asked.
fn asked(names: &Path) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(names).expect("it was just written");
    let names: serde_json::Value = serde_json::from_str(&text).expect("a JSON file");
    let names = names["list"].as_array().expect("a list of names").iter().filter_map(serde_json::Value::as_str);
    names.map(|name| wire(&format!("www.{name}"))).collect()
}

/// Reads a line of the process's status, in KiB.
fn memory(line: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|candidate| candidate.strip_prefix(line));
    value.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn made_up(folder: &Path, count: u64) -> (Vec<List>, PathBuf) {
    let name = |number: u64| {
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24;
        format!("host{}.name{mixed:x}.example", number % 7)
    };
    let path = folder.join("names");
    let mut file = BufWriter::new(File::create(&path).expect("room in the folder"));
    for number in 0..count {
        writeln!(file, "*.{}", name(number)).expect("room in the folder");
    }
    file.flush().expect("room in the folder");
    let asked = folder.join("names.json");
    let names: Vec<String> = (count - 10_000..count + 90_000).map(name).collect();
    fs::write(&asked, serde_json::json!({ "list": names }).to_string()).expect("room in the folder");
    (vec![list("names".into(), path)], asked)
}

fn unpack(packed: &Path, path: &Path) -> Option<()> {
    if packed.extension()? != "zst" {
        return fs::copy(packed, path).ok().map(drop);
    }
    let status = Command::new("zstdcat").arg(packed).stdout(File::create(path).ok()?).status().ok()?;
    status.success().then_some(())
}

fn list(name: String, path: PathBuf) -> List {
    let refresh = Duration::from_secs(86400);
    List {
        name,
        source: ListSource::Path(path),
        action: Action::Block,
        purpose: hearthgate::dns::Purpose::Filter,
        block_as: BlockAs::Null,
        refresh,
        enabled: true,
    }
}

fn config(lists: Vec<List>) -> Config {
    let default = Group { name: "default".into(), lists: (0..lists.len()).collect(), ..Group::default() };
    Config { lists, groups: vec![default], ..Config::default() }
}

fn wire(name: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.split('.') {
        wire.push(u8::try_from(label.len()).expect("a label is short"));
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire
}
