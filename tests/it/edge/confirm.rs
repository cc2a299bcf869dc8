//! The second factor, by a real tunnel.

use std::{net::IpAddr, time::SystemTime};

use hearthgate::{
    config,
    vpn::{client::Tunnel, keys::PublicKey},
};
use hickory_proto::rr::RecordType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const GATE: &str = "10.77.0.1";

/// What the authenticator shows, so many steps from now.
fn password(uri: &str, steps: i64) -> String {
    let secret = uri.split("secret=").nth(1).unwrap().split('&').next().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let bits: String = secret.chars().map(|letter| format!("{:05b}", alphabet.find(letter).unwrap())).collect();
    let key: Vec<u8> = bits
        .as_bytes()
        .chunks_exact(8)
        .map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap())
        .collect();
    let now = i64::try_from(SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key);
    let tag = aws_lc_rs::hmac::sign(&key, &(now / 30 + steps).to_be_bytes());
    let at = usize::from(tag.as_ref()[19] & 15);
    let number = u32::from_be_bytes(tag.as_ref()[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
    format!("{:06}", number % 1_000_000)
}

async fn tunnel(running: &Running<'_>) -> Tunnel {
    let key = config::tour_key(&running.house.state()).unwrap();
    let status = running.status();
    let gate: PublicKey = status["vpn"]["public_key"].as_str().unwrap().parse().unwrap();
    let endpoint = status["vpn"]["listen"][0].as_str().unwrap().parse().unwrap();
    Tunnel::connect(&key, &gate, None, "10.77.0.2".parse().unwrap(), endpoint).await.unwrap()
}

fn gate(port: u16) -> SocketAddr {
    SocketAddr::new(GATE.parse::<IpAddr>().unwrap(), port)
}

async fn says(tunnel: &Tunnel, request: &str) -> String {
    let mut stream = tunnel.tcp(gate(80)).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn sends(tunnel: &Tunnel, host: &str, body: &str) -> String {
    let length = body.len();
    let head = format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    says(tunnel, &(head + body)).await
}

/// What makes a form one of the page's own.
async fn seal(tunnel: &Tunnel) -> String {
    let page = says(tunnel, &format!("GET / HTTP/1.1\r\nHost: {GATE}\r\nConnection: close\r\n\r\n")).await;
    let value = page.split("name=\"seal\" value=\"").nth(1).unwrap_or_else(|| panic!("{page}"));
    value.split('"').next().unwrap().to_owned()
}

async fn types(tunnel: &Tunnel, code: &str) -> String {
    let seal = seal(tunnel).await;
    sends(tunnel, GATE, &format!("seal={seal}&code={code}")).await
}

/// Whether DNS, the ingress and the metrics let the peer in.
async fn reaches(tunnel: &Tunnel) -> [bool; 3] {
    let question = crate::dns::query(7, "nas.home.arpa.", RecordType::A).to_vec().unwrap();
    let dns = tunnel.udp_exchange(gate(53), &question).await.is_ok();
    [dns, tunnel.tcp(gate(443)).await.is_ok(), tunnel.tcp(gate(53)).await.is_ok()]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_reaches_a_page_alone_until_its_person_has_confirmed() {
    let house = House::new();
    house.write(&house.text().replace("name = \"tour\"", "name = \"tour\"\nconfirm = \"12h\""));
    let mut running = house.start();
    let peer = tunnel(&running).await;
    let get = format!("GET /anything HTTP/1.1\r\nHost: {GATE}\r\nConnection: close\r\n\r\n");

    // Nobody has set it up: closed all the same.
    assert_eq!(reaches(&peer).await, [false; 3]);
    let page = says(&peer, &get).await;
    assert!(
        page.starts_with("HTTP/1.1 200") && page.contains("<form method=\"post\"") && page.contains("tour"),
        "{page}"
    );
    assert!(page.contains("default-src 'none'") && !page.contains("<script"), "{page}");
    assert!(types(&peer, "123456").await.contains("peer confirm-setup tour"));
    let set_up = house.call(&["peer", "confirm-setup", "tour"]);
    assert!(set_up.status.success(), "{}", stderr(&set_up));
    let uri = stdout(&set_up);
    assert!(uri.starts_with("otpauth://totp/home.arpa:tour?secret="), "{uri}");
    assert!(stdout(&house.call(&["peer", "list"])).contains("has to confirm"));
    assert_eq!(reaches(&peer).await, [false; 3]);

    // A page of somebody else's can have a browser send a form, and have its own name lead here.
    let (seal, right) = (seal(&peer).await, password(&uri, 0));
    for form in [format!("code={right}"), format!("seal=&code={right}"), format!("seal={}0&code={right}", &seal[1..])] {
        let refused = sends(&peer, GATE, &form).await;
        assert!(refused.starts_with("HTTP/1.1 403") && refused.contains("its own page"), "{refused}");
    }
    for host in ["evil.example", "10.77.0.2", "home.arpa.evil.example", "xhome.arpa"] {
        let form = format!("seal={seal}&code={right}");
        assert!(sends(&peer, host, &form).await.starts_with("HTTP/1.1 421"), "{host}");
        let page = says(&peer, &get.replace(GATE, host)).await;
        assert!(page.starts_with("HTTP/1.1 421") && !page.contains(&seal), "{host}: {page}");
    }
    assert!(says(&peer, &get.replace(GATE, "welcome.home.arpa:80")).await.starts_with("HTTP/1.1 200"));
    let wrong = types(&peer, "1").await;
    let early = types(&peer, &password(&uri, 0)).await;
    assert!(wrong.starts_with("HTTP/1.1 403") && wrong.contains("retry-after: 1"), "{wrong}");
    // Unless this machine was so slow that the second is over already.
    assert!(early.starts_with("HTTP/1.1 429") || early.contains("Confirmed until"), "{early}");
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let right = match early.contains("Confirmed until") {
        true => early,
        false => types(&peer, &password(&uri, 0)).await,
    };
    assert!(right.starts_with("HTTP/1.1 200") && right.contains("Confirmed until"), "{right}");
    assert_eq!(reaches(&peer).await, [true; 3]);
    let listed = stdout(&house.call(&["peer", "list"]));
    assert!(listed.contains("confirmed until"), "{listed}");
    let shown = stdout(&house.call(&["audit", "show"]));
    for line in
        ["peer confirm-setup tour: done", "confirmed: refused: a wrong password, 1 in a row", "confirmed: until "]
    {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    drop(peer);

    running.signal(libc::SIGTERM);
    assert_eq!(running.end(), Some(0));
    let mut running = house.start();
    let peer = tunnel(&running).await;
    assert_eq!(reaches(&peer).await, [true; 3], "it is confirmed after a restart");
    let again = house.call(&["peer", "confirm-setup", "tour"]);
    assert!(again.status.success() && stdout(&again) != uri);
    assert_eq!(reaches(&peer).await, [false; 3], "what the old secret opened is closed");
    drop(peer);

    // What cannot be read opens nothing.
    running.signal(libc::SIGTERM);
    assert_eq!(running.end(), Some(0));
    for file in ["confirmations", "confirmations.old"] {
        let _ = fs::write(house.state().join(file), "torn");
    }
    let running = house.start();
    assert_eq!(reaches(&tunnel(&running).await).await, [false; 3]);
    let kept = fs::read_dir(house.state()).unwrap().filter_map(|entry| fs::read(entry.unwrap().path()).ok());
    let secret = uri.split("secret=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    assert!(
        kept.into_iter().all(|content| !String::from_utf8_lossy(&content).contains(&secret)),
        "the old secret is gone"
    );
}
