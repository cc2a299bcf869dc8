//! Certificates of a public CA, as the house gets them: with `pebble`, where it is installed.

mod front;
mod pebble;

use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use hearthgate::{
    helper::Helper,
    ingress::{Acme, Builtin, CertificateStatus, Challenge, Eab, Target},
    origin::Origin,
    provider::{Provider, Reach},
    public_dns::PublicDns,
};
use hickory_proto::rr::{
    Name, RData, Record, RecordType,
    rdata::{A, NS},
};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::client::TlsStream;

use self::{
    front::{Front, Manner},
    pebble::Pebble,
};
use crate::ingress::edge::{self, Edge, everything_is_here, read_one, route};

const WWW: &str = "www.home.example";

fn acme(challenge: Challenge, pebble: &Pebble) -> Acme {
    Acme {
        hosts: Vec::new(),
        email: Some("me@home.example".into()),
        directories: vec![pebble.directory()],
        challenge,
        provider: None,
        profile: None,
        eab: None,
    }
}

/// What the public DNS says of the zone `home.example`, whose only server is this one.
fn public(server: SocketAddr) -> PublicDns {
    let name = |text: &str| Name::from_ascii(text).unwrap();
    let ask = move |asked: Name, rtype: RecordType| async move {
        let data = match (asked.to_ascii().as_str(), rtype) {
            ("home.example.", RecordType::NS) => RData::NS(NS(name("ns.home.example."))),
            ("ns.home.example.", RecordType::A) => RData::A(A(std::net::Ipv4Addr::LOCALHOST)),
            _ => return Ok(Vec::new()),
        };
        Ok(vec![Record::from_rdata(asked, 60, data)])
    };
    PublicDns::new(ask).with_port(server.port())
}

/// An ingress, and a CA that checks it.
async fn house(environment: &[(&str, &str)]) -> Option<(Edge, Pebble)> {
    let edge = Edge::start(|_| {});
    let status = edge.plane.status();
    let pebble = Pebble::start(status.http[0], status.https[0], environment).await?;
    Some((edge, pebble))
}

/// Waits until the certificate of a host is as it should be.
async fn until(edge: &Edge, host: &str, good: impl Fn(&CertificateStatus) -> bool) -> CertificateStatus {
    let begun = Instant::now();
    loop {
        let status = edge.plane.status();
        let found = status.certificates.into_iter().find(|one| one.hosts.iter().any(|name| name == host)).unwrap();
        if good(&found) {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn is_issued(status: &CertificateStatus) -> bool {
    !status.stand_in && status.not_after.is_some()
}

/// Returns a connection whose certificate leads to the CA.
async fn shaken(edge: &Edge, pebble: &Pebble, host: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(edge.https()).await?;
    edge.tls_trusting(stream, host, "http/1.1", &pebble.root().await).await
}

#[tokio::test]
async fn a_public_host_gets_its_certificate_by_http_01_and_by_tls_alpn_01() {
    for challenge in [Challenge::Http01, Challenge::TlsAlpn01] {
        let Some((edge, pebble)) = house(&[]).await else { return };
        assert!(until(&edge, WWW, |_| true).await.source.contains("house's CA"));

        edge.reload(|config| config.acme.push(acme(challenge, &pebble)));

        let status = until(&edge, WWW, is_issued).await;
        assert_eq!((status.problem, status.source.as_str()), (None, "an order of www.home.example"));
        assert!(status.next.unwrap() < status.not_after.unwrap());
        shaken(&edge, &pebble, WWW).await.unwrap();
        // Whoever is not to be known of is with the house's CA, and no order has its name.
        let admin = until(&edge, "admin.home.example", |_| true).await;
        assert_eq!(admin.source, "the house's CA");
        assert!(!pebble.log().contains("admin"), "{}", pebble.log());
    }
}

#[tokio::test]
async fn what_was_issued_is_kept_for_nobody_else_to_read_and_not_ordered_again() {
    let Some((mut edge, pebble)) = house(&[]).await else { return };
    edge.reload(|config| config.acme.push(acme(Challenge::Http01, &pebble)));
    let first = until(&edge, WWW, is_issued).await;
    let folder = edge.state.path().join("acme");

    edge.drain().unwrap();
    edge.run_again();
    edge.reload(|config| config.acme.push(acme(Challenge::Http01, &pebble)));
    shaken(&edge, &pebble, WWW).await.unwrap();

    assert_eq!(until(&edge, WWW, is_issued).await.not_after, first.not_after);
    assert_eq!(pebble.log().matches("Added order").count(), 1, "{}", pebble.log());
    let mut kinds = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
        kinds.push(entry.path().extension().unwrap().to_str().unwrap().to_owned());
    }
    for kind in ["account", "certificate", "progress"] {
        assert!(kinds.iter().any(|one| one == kind), "{kinds:?}");
    }
    assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn nonces_that_are_refused_are_tried_again() {
    let Some((edge, pebble)) = house(&[("PEBBLE_WFE_NONCEREJECT", "10")]).await else { return };

    edge.reload(|config| config.acme.push(acme(Challenge::Http01, &pebble)));

    until(&edge, WWW, is_issued).await;
}

#[tokio::test]
async fn an_account_is_bound_to_one_that_the_owner_has() {
    let Some((edge, pebble)) = house(&[("EAB", "1")]).await else { return };
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let key = base64::Engine::decode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, key).unwrap();

    edge.reload(|config| config.acme.push(acme(Challenge::Http01, &pebble)));
    let refused = until(&edge, WWW, |status| status.problem.is_some()).await;
    edge.reload(|config| {
        let eab = Some(Eab { kid: "house".into(), key: key.clone() });
        // Another entry than the one that must wait.
        config.routes.push(route("bound.home.example", "/", edge::public(), Target::Builtin(Builtin::Welcome)));
        config.acme.push(Acme { eab, ..acme(Challenge::Http01, &pebble) });
    });

    assert!(refused.stand_in && refused.problem.unwrap().contains("externalAccountRequired"));
    until(&edge, "bound.home.example", is_issued).await;
}

#[tokio::test]
async fn a_check_that_fails_is_told_and_waited_for() {
    let Some((edge, pebble)) = house(&[]).await else { return };
    // Its name leads where nobody answers.
    pebble.names("add-a", r#"{"host":"www.home.example.","addresses":["127.0.0.2"]}"#).await;

    edge.reload(|config| config.acme.push(acme(Challenge::Http01, &pebble)));

    let status = until(&edge, WWW, |status| status.problem.is_some()).await;
    assert!(status.stand_in, "{status:?}");
    assert!(status.problem.unwrap().contains("127.0.0.2"), "the CA's own words");
    let next = until(&edge, WWW, |status| status.next.is_some()).await.next.unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!((now + 100..now + 400).contains(&next), "in some minutes: {next} at {now}");
}

#[tokio::test]
async fn the_second_directory_is_taken_when_the_first_is_away() {
    let Some((edge, pebble)) = house(&[]).await else { return };
    let mut away = pebble.directory();
    away.url = "https://127.0.0.1:1/dir".into();

    edge.reload(|config| {
        let directories = vec![away.clone(), pebble.directory()];
        config.acme.push(Acme { directories, ..acme(Challenge::TlsAlpn01, &pebble) });
    });

    until(&edge, WWW, is_issued).await;
}

#[tokio::test]
async fn a_renewal_drops_no_connection() {
    let Some((edge, pebble)) = house(&[]).await else { return };
    edge.reload(|config| config.acme.push(acme(Challenge::Http01, &pebble)));
    let first = until(&edge, WWW, is_issued).await;
    let mut open = shaken(&edge, &pebble, WWW).await.unwrap();
    let ask = format!("GET / HTTP/1.1\r\nHost: {WWW}\r\n\r\n");
    open.write_all(ask.as_bytes()).await.unwrap();
    assert!(read_one(&mut open).await.starts_with("HTTP/1.1 200 "));

    // Another profile is another certificate: it is ordered at once.
    edge.reload(|config| {
        let profile = Some("default".into());
        config.acme.push(Acme { profile, ..acme(Challenge::Http01, &pebble) });
    });
    until(&edge, WWW, |status| is_issued(status) && status.not_after != first.not_after).await;

    open.write_all(ask.as_bytes()).await.unwrap();
    assert!(read_one(&mut open).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(pebble.log().matches("Added order").count(), 2);
    shaken(&edge, &pebble, WWW).await.unwrap();
}

#[tokio::test]
async fn a_wildcard_by_dns_01_serves_each_side_with_a_key_of_its_own() {
    let Some(pebble) = Pebble::start_anywhere().await else { return };
    let hook = pebble.folder.path().join("hook");
    let curl = |what: &str, body: &str| format!("curl -sf -d '{body}' http://{}/{what}", pebble.told);
    let script = format!(
        "#!/bin/sh\ncase $1 in\npresent) {} ;;\ncleanup) {} ;;\nesac\necho \"$@\" >> {}\n",
        curl("set-txt", r#"{"host":"'$2'.","value":"'$3'"}"#),
        curl("clear-txt", r#"{"host":"'$2'."}"#),
        pebble.folder.path().join("hook.log").display(),
    );
    std::fs::write(&hook, script).unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let own = std::path::Path::new(env!("CARGO_BIN_EXE_hearthgate"));
    let helper = Helper::start(own, std::slice::from_ref(&hook), None).unwrap();
    let reach = Reach { public: public(pebble.dns), helper: Some(helper), ..Reach::new(everything_is_here()) };

    let edge = Edge::start_with(reach, |config| {
        let provider = Some(Provider::Program(hook.clone()));
        config.acme.push(Acme { provider, ..acme(Challenge::Dns01, &pebble) });
    });

    let outside = until(&edge, WWW, is_issued).await;
    let inside = until(&edge, "admin.home.example", is_issued).await;
    assert_eq!(outside.source, "an order of *.home.example");
    assert_eq!(inside.source, "an order of *.home.example (inside)");
    let root = pebble.root().await;
    let shown = async |origin, host: &str| {
        let stream = edge.connect(origin, 443).await;
        let stream = edge.tls_trusting(stream, host, "http/1.1", &root).await.unwrap();
        let leaf = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
        let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).unwrap();
        parsed.public_key().raw.to_vec()
    };
    assert_ne!(shown(Origin::Wan, WWW).await, shown(edge::VPN, "admin.home.example").await);
    assert_eq!(shown(edge::VPN, WWW).await, shown(Origin::Wan, WWW).await);
    let calls = |verb: &str| {
        let log = std::fs::read_to_string(pebble.folder.path().join("hook.log")).unwrap();
        log.lines().filter(|line| line.starts_with(verb)).count()
    };
    // A certificate is in force before its order has cleaned up.
    while calls("cleanup ") < 2 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((calls("present _acme-challenge.home.example "), calls("cleanup ")), (2, 2));
    assert!(!pebble.log().contains("admin") && !pebble.log().contains(WWW), "{}", pebble.log());
}

#[tokio::test]
async fn the_cas_window_renews_a_certificate_long_before_its_end() {
    let Some((edge, pebble)) = house(&[]).await else { return };
    let front = Front::start(&pebble, Manner::Windows).await;

    edge.reload(|config| {
        config.acme.push(Acme { directories: vec![front.directory()], ..acme(Challenge::Http01, &pebble) });
    });
    // The certificate after the next one, which the first window asks for, has a window far away: it stays
    // until its own end draws near.
    let begun = Instant::now();
    while front.windows.load(Ordering::SeqCst) < 2 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", pebble.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let status = until(&edge, WWW, |status| is_issued(status) && status.problem.is_none()).await;
    assert!(status.next.unwrap() <= status.not_after.unwrap(), "{status:?}");
    // Pebble does not say "replaces" again: the order is made anew without it.
    assert!(pebble.log().matches("Issued certificate").count() >= 2, "{}", pebble.log());
    shaken(&edge, &pebble, WWW).await.unwrap();
}

#[tokio::test]
async fn a_directory_that_is_down_says_when_to_come_again() {
    let Some((edge, pebble)) = house(&[]).await else { return };
    let front = Front::start(&pebble, Manner::Down).await;

    edge.reload(|config| {
        config.acme.push(Acme { directories: vec![front.directory()], ..acme(Challenge::Http01, &pebble) });
    });

    let status = until(&edge, WWW, |status| status.problem.is_some() && status.next.is_some()).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(status.stand_in && status.problem.unwrap().contains("503"));
    assert!((now + 7000..now + 7300).contains(&status.next.unwrap()), "in two hours: {:?} at {now}", status.next);
}
