//! Look-ups in the table of blocked names, and how long it takes to build.
//!
//! With the data folder (`HEARTHGATE_DATA`, or `../shared/data`) the table is the union of its lists, asked
//! with popular names; without it a million made-up names.

use std::{
    fs::{self, File},
    hint::black_box,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use criterion::{Criterion, criterion_group, criterion_main};
use hearthgate::dns::{
    Action, BlockAs, Config, Group, List, ListSource,
    filter::{GroupId, Policy, Verdict},
};

fn bench(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (lists, names) = real(folder.path()).unwrap_or_else(|| made_up(folder.path()));
    let config = Config { state: folder.path().to_owned(), ..config(lists) };
    // Resets the peak (Linux, proc(5)).
    let _ = fs::write("/proc/self/clear_refs", "5");
    let before = memory("VmRSS:");
    let (policy, _) = Policy::build(&config, None).expect("the lists can be read");
    let peak = memory("VmHWM:").saturating_sub(before);
    println!("building took {peak} KiB at its peak, and keeps {} KiB", policy.bytes() / 1024);
    let per_name = policy.bytes() as f64 / policy.names() as f64;
    println!("{} names, {} bytes: {per_name:.2} bytes a name", policy.names(), policy.bytes());
    let asked = asked(&names);
    let (misses, hits): (Vec<_>, Vec<_>) =
        asked.iter().partition(|name| policy.verdict(GroupId::DEFAULT, name, 1) == Verdict::Pass);
    println!("{} names without a rule, {} with one", misses.len(), hits.len());

    let mut group = criterion.benchmark_group("filter");
    for (what, names) in [("miss", &misses), ("hit", &hits), ("mixed", &asked.iter().collect())] {
        let mut next = names.iter().cycle();
        group.bench_function(format!("verdict/{what}"), |bencher| {
            bencher.iter(|| policy.verdict(GroupId::DEFAULT, black_box(next.next().expect("there are names")), 1));
        });
    }
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    group.bench_function("build", |bencher| bencher.iter(|| Policy::build(&config, None).expect("as before")));
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

fn made_up(folder: &Path) -> (Vec<List>, PathBuf) {
    let name = |number: u64| {
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24;
        format!("host{}.name{mixed:x}.example", number % 7)
    };
    let path = folder.join("names");
    let mut file = BufWriter::new(File::create(&path).expect("room in the folder"));
    for number in 0..1_000_000 {
        writeln!(file, "*.{}", name(number)).expect("room in the folder");
    }
    file.flush().expect("room in the folder");
    let asked = folder.join("names.json");
    let names: Vec<String> = (990_000..1_090_000).map(name).collect();
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

criterion_group!(benches, bench);
criterion_main!(benches);
