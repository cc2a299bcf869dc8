//! Routes for clients from some countries, by a file that the test writes.

use std::path::Path;

use hearthgate::{
    ingress::{Country, Http, RouteLimits, Target, Upstream},
    origin::Origin,
};

use super::{
    LAN,
    edge::{Behind, Edge, public, route, to, upstream},
    get,
    manners::metrics,
};

/// Writes a file that says one country for 203.0.113.0/24, where the clients of these tests are.
fn write(path: &Path, country: &str) {
    const DEPTH: u32 = 24;
    let bits = u32::from_be_bytes([203, 0, 113, 0]);
    let mut bytes = Vec::new();
    for depth in 0..DEPTH {
        let next = if depth + 1 == DEPTH { DEPTH + 16 } else { depth + 1 };
        let sides = if bits >> (31 - depth) & 1 == 1 { [DEPTH, next] } else { [next, DEPTH] };
        sides.iter().for_each(|side| bytes.extend(&side.to_be_bytes()[1..]));
    }
    bytes.extend([0; 16]);
    let text = |text: &str| [&[0x40 | u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat();
    let number = |number: u8| vec![0xa1, number];
    bytes.extend([vec![0xe1], text("country"), vec![0xe1], text("iso_code"), text(country)].concat());
    bytes.extend(b"\xab\xcd\xefMaxMind.com\xe3");
    for (key, value) in [("node_count", DEPTH as u8), ("record_size", 24), ("ip_version", 4)] {
        bytes.extend([text(key), number(value)].concat());
    }
    std::fs::write(path, bytes).unwrap();
}

fn only(country: &str) -> RouteLimits {
    RouteLimits { allow_country: vec![Country::parse(country).unwrap()], ..RouteLimits::default() }
}

#[tokio::test]
async fn a_route_is_for_the_countries_that_it_names_and_the_house_is_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("country.mmdb");
    write(&file, "DE");
    let behind = Behind::start().await;
    let edge = Edge::start(|config| {
        config.countries = Some(file.clone());
        for (name, limits) in [
            ("here", only("de")),
            ("elsewhere", only("FR")),
            ("denied", RouteLimits { deny_country: only("DE").allow_country, ..RouteLimits::default() }),
        ] {
            let mut one = route(&format!("{name}.home.example"), "/", public(), to(behind.address));
            one.rules.limits = limits;
            config.routes.push(one);
        }
        let http = Http::Opaque;
        let passed = Target::Passthrough(vec![Upstream { http, ..upstream(behind.address) }]);
        let mut passed = route("passed.home.example", "/", public(), passed);
        passed.rules.limits = only("FR");
        config.routes.push(passed);
    });
    let status = async |origin, name: &str| {
        let host = format!("{name}.home.example");
        let answer = edge.ask(origin, &host, &get(&host, "/")).await;
        answer.split(' ').nth(1).unwrap().to_owned()
    };

    for (name, wan) in [("here", "200"), ("elsewhere", "403"), ("denied", "403")] {
        assert_eq!(status(Origin::Wan, name).await, wan, "{name}");
        assert_eq!(status(LAN, name).await, "200", "{name}");
    }
    assert_eq!(edge.hello(Origin::Wan, Some("passed.home.example")).await, b"");
    assert!(metrics(&edge).contains("refused_total{reason=\"country\",route=\"elsewhere.home.example/\"} 1"));
    assert!(metrics(&edge).contains("refused_total{reason=\"country\",route=\"passed.home.example/\"} 1"));
}

#[tokio::test]
async fn a_file_that_changes_is_followed_and_one_that_breaks_stays_what_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("country.mmdb");
    write(&file, "DE");
    let behind = Behind::start().await;
    let config = |config: &mut hearthgate::ingress::Config| {
        config.countries = Some(file.clone());
        let mut one = route("here.home.example", "/", public(), to(behind.address));
        one.rules.limits = only("DE");
        config.routes.push(one);
    };
    let edge = Edge::start(config);
    let answer = async || edge.ask(Origin::Wan, "here.home.example", &get("here.home.example", "/")).await;
    assert!(answer().await.starts_with("HTTP/1.1 200 "));

    std::fs::write(&file, "<html>429 Too Many Requests</html>").unwrap();
    edge.reload(config);
    assert!(answer().await.starts_with("HTTP/1.1 200 "));
    assert!(edge.plane.status().countries.unwrap().problem.is_some());
    // Another length: the clock of a file system may be coarse.
    write(&file, "FRA");
    write(&file, "FR");
    edge.reload(config);

    assert!(answer().await.starts_with("HTTP/1.1 403 "));
    assert_eq!(edge.plane.status().countries.unwrap().problem, None);
    let broken = folder.path().join("broken.mmdb");
    std::fs::write(&broken, "nothing").unwrap();
    assert!(edge.try_reload(|config| config.countries = Some(broken)).is_err());
}
