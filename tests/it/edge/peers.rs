//! Peers that commands add and remove.

use super::*;

#[test]
fn peers_come_and_go_while_it_runs() {
    let house = House::new();
    let running = house.start();

    let added = house.call(&[
        "peer",
        "add",
        "laptop",
        "--group",
        "admins",
        "--may-reach",
        "services,tcp 192.168.1.0/24 22",
        "--qr",
    ]);

    assert!(added.status.success(), "{}", stderr(&added));
    let text = stdout(&added);
    assert!(text.starts_with("[Interface]\nPrivateKey = "), "{text}");
    assert!(text.contains("Address = 10.77.0.3/32, fd77::2/128\n"), "{text}");
    assert!(text.contains("Endpoint = 127.0.0.1:8443\n") && text.contains("192.168.1.0/24"), "{text}");
    assert!(text.lines().all(|line| line.is_empty() || line.starts_with('[') || line.contains(" = ")), "{text}");
    assert!(stderr(&added).contains('█'), "the QR code is beside it");
    let secret = text.lines().find_map(|line| line.strip_prefix("PrivateKey = ")).unwrap();
    let kept = fs::read_dir(house.state()).unwrap().filter_map(|entry| fs::read(entry.unwrap().path()).ok());
    assert!(kept.into_iter().all(|content| !String::from_utf8_lossy(&content).contains(secret)));
    assert!(stdout(&house.call(&["peer", "list"])).contains("laptop"));
    assert_eq!(running.status()["vpn"]["peers"].as_array().unwrap().len(), 2);

    let twice = house.call(&["peer", "add", "laptop"]);
    let owners = house.call(&["peer", "remove", "tour"]);
    assert_eq!((twice.status.code(), owners.status.code()), (Some(1), Some(1)));
    assert!(stderr(&owners).contains("never rewritten"), "{}", stderr(&owners));
    let refused = house.call(&["peer", "add", "phone", "--may-reach", "everything"]);
    assert_eq!(refused.status.code(), Some(78), "{}", stderr(&refused));
    assert_eq!(running.status()["generation"], 2);

    assert!(house.call(&["peer", "remove", "laptop"]).status.success());
    assert_eq!(running.status()["vpn"]["peers"].as_array().unwrap().len(), 1);
    assert_eq!(house.call(&["peer", "remove", "laptop"]).status.code(), Some(1));
}

#[test]
fn every_change_can_be_seen_and_taken_back() {
    let house = House::new();
    let running = house.start();
    assert!(house.call(&["peer", "add", "laptop"]).status.success());

    let log = stdout(&house.call(&["config", "log"]));
    let diff = stdout(&house.call(&["config", "diff"]));
    let show = stdout(&house.call(&["config", "show", "1"]));
    let secret = fs::read_to_string(house.state().join("edits.toml")).unwrap();
    let secret = secret.lines().find_map(|line| line.strip_prefix("preshared_key = ")).unwrap().trim_matches('"');
    let shown = stdout(&house.call(&["config", "show"]));
    for text in [&diff, &shown] {
        assert!(text.contains("preshared_key = \"(hidden, ") && !text.contains(secret), "{text}");
    }
    let rollback = house.call(&["config", "rollback", "1"]);
    assert_eq!(log.lines().count(), 2, "{log}");
    assert!(log.contains("start") && log.contains("peer add laptop"), "{log}");
    assert!(diff.contains("+name = \"laptop\""), "{diff}");
    assert!(show.contains("[dns.records]") && !show.contains("laptop"), "{show}");
    assert!(rollback.status.success(), "{}", stderr(&rollback));
    assert_eq!(running.status()["vpn"]["peers"].as_array().unwrap().len(), 1);
    assert_eq!(house.call(&["config", "rollback", "99"]).status.code(), Some(1));
}

#[test]
fn peers_are_kept_in_the_state_while_nothing_runs() {
    let house = House::new();
    let file = house.file();
    let file = file.to_str().unwrap();

    let added = house.call(&["peer", "add", "laptop", "--config", file]);
    let refused = house.call(&["peer", "add", "phone", "--may-reach", "everything", "--config", file]);
    // As a process holds it that has just begun, or answers no more.
    let lock = fs::OpenOptions::new().write(true).open(house.state().join("lock")).unwrap();
    lock.try_lock().unwrap();
    let locked = house.call(&["peer", "add", "tablet", "--config", file]);
    let kept = house.call(&["config", "rollback", "1", "--config", file]);
    drop(lock);

    assert!(added.status.success(), "{}", stderr(&added));
    assert!(stderr(&added).contains("next start"), "{}", stderr(&added));
    assert_eq!(refused.status.code(), Some(78), "{}", stderr(&refused));
    for locked in [locked, kept] {
        assert!(!locked.status.success() && stderr(&locked).contains("does not answer"), "{}", stderr(&locked));
    }
    let shown = stdout(&house.call(&["audit", "show"]));
    assert!(shown.contains("peer add laptop: done, for the next start"), "{shown}");
    assert!(
        shown.contains("peer add phone: refused") && shown.contains("(uid ") && !shown.contains("tablet"),
        "{shown}"
    );
    let running = house.start();
    assert_eq!(running.status()["vpn"]["peers"][1]["name"], "laptop");
}

#[test]
fn peers_come_and_go_whatever_the_file_is_like_meanwhile() {
    let house = House::new();
    let running = house.start();
    let (text, changed) = (house.text(), house.text().replace("blocked.example", "other.example"));

    house.write(&format!("{text}\n[half"));
    let added = house.call(&["peer", "add", "laptop"]);
    house.write(&changed);
    let removed = house.call(&["peer", "remove", "laptop"]);
    let kept = stdout(&house.call(&["config", "show"]));
    let reloaded = house.call(&["reload"]);

    assert!(added.status.success(), "{}", stderr(&added));
    assert!(removed.status.success(), "{}", stderr(&removed));
    assert!(kept.contains("blocked.example") && !kept.contains("other.example"), "{kept}");
    assert!(reloaded.status.success(), "{}", stderr(&reloaded));
    assert!(stdout(&house.call(&["config", "show"])).contains("other.example"));
    assert_eq!(running.status()["generation"], 4);
}

#[test]
fn a_peer_gets_new_keys_is_kept_out_and_let_in_again() {
    let house = House::new();
    let running = house.start();
    let key = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = ").map(str::to_owned));
        line.unwrap_or_else(|| panic!("no {name}: {text}"))
    };
    let path = house.state().with_extension("phone.conf");

    let added = house.call(&["peer", "add", "phone", "--expires", "2099-12-31", "--keepalive", "20s"]);
    let first = stdout(&added);
    let rotated = house.call(&["peer", "rotate", "phone", "--out", path.to_str().unwrap()]);
    let second = fs::read_to_string(&path).unwrap();

    assert!(added.status.success() && rotated.status.success(), "{}{}", stderr(&added), stderr(&rotated));
    for name in ["PrivateKey", "PresharedKey"] {
        assert_ne!(key(&first, name), key(&second, name));
    }
    for name in ["Address", "Endpoint", "AllowedIPs", "PersistentKeepalive"] {
        assert_eq!(key(&first, name), key(&second, name));
    }
    assert_eq!(key(&first, "PersistentKeepalive"), "20");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let listed = stdout(&house.call(&["peer", "list"]));
    let line = listed.lines().find(|line| line.starts_with("phone")).unwrap();
    assert!(line.contains("no handshake yet") && line.contains("until 2100-01-01"), "{line}");

    assert!(house.call(&["peer", "disable", "phone"]).status.success());
    assert!(stdout(&house.call(&["peer", "list"])).contains("disabled"));
    assert!(house.call(&["peer", "enable", "phone"]).status.success());
    assert!(!stdout(&house.call(&["peer", "list"])).contains("disabled"));
    assert_eq!(house.call(&["peer", "rotate", "nobody"]).status.code(), Some(1));
    let _ = fs::remove_file(path);
    drop(running);
}

#[test]
fn peers_of_others_are_taken_over_and_given_back() {
    let house = House::new();
    let running = house.start();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let server = hearthgate::vpn::keys::PrivateKey::generate();
    let peer = |last: u8| {
        let key = hearthgate::vpn::keys::PrivateKey::generate().public_key();
        format!("# Client: phone {last}\n[Peer]\nPublicKey = {key}\nAllowedIPs = 10.77.0.{last}/32\n\n")
    };
    let interface =
        format!("[Interface]\nPrivateKey = {}\nAddress = 10.77.0.1/24\nListenPort = 51820\n", server.reveal());
    fs::write(at("wg0.conf"), format!("{interface}\n{}{}", peer(20), peer(21))).unwrap();
    fs::write(at("bad.conf"), format!("{interface}\n{}{}", peer(22), peer(20))).unwrap();

    let blocked = house.call(&["peer", "import", &at("wg0.conf"), "--gate-key", &at("missing/gate.key")]);
    let nobody = stdout(&house.call(&["peer", "list"]));
    let imported = house.call(&["peer", "import", &at("wg0.conf"), "--gate-key", &at("gate.key")]);
    let refused = house.call(&["peer", "import", &at("bad.conf"), "--gate-key", &at("other.key")]);

    assert!(
        !blocked.status.success() && !nobody.contains("phone"),
        "no peers without the key that they know: {nobody}"
    );
    assert!(!fs::exists(at("other.key")).unwrap(), "no key is left of an import that was refused");

    assert!(imported.status.success(), "{}", stderr(&imported));
    for advice in ["added: phone-20, phone-21", "addresses   = [\"10.77.0.1/24\"]", "listen      = [\"0.0.0.0:51820\""]
    {
        assert!(stderr(&imported).contains(advice), "{advice}: {}", stderr(&imported));
    }
    assert_eq!(fs::read_to_string(at("gate.key")).unwrap().trim(), server.reveal());
    assert!(!refused.status.success());
    let listed = stdout(&house.call(&["peer", "list"]));
    assert_eq!(listed.matches("phone-2").count(), 2, "all or none: {listed}");
    let exported = stdout(&house.call(&["peer", "export", "--config", house.file().to_str().unwrap()]));
    assert!(exported.contains("# phone-20") && exported.contains("10.77.0.21/32"), "{exported}");
    assert!(!exported.lines().any(|line| line.starts_with("PrivateKey")), "{exported}");
    drop(running);
}

#[test]
fn what_was_changed_by_whom_is_written_down_and_cannot_be_altered_unseen() {
    let house = House::new();
    let running = house.start();
    assert!(house.call(&["peer", "add", "laptop"]).status.success());
    assert!(!house.call(&["peer", "add", "phone", "--may-reach", "everything"]).status.success());
    assert!(house.call(&["peer", "remove", "laptop"]).status.success());

    let shown = stdout(&house.call(&["audit", "show"]));
    let verified = house.call(&["audit", "verify"]);

    for line in
        ["start: generation 1", "peer add laptop: generation 2", "peer add phone: refused", "peer remove laptop: "]
    {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    assert!(shown.contains("(uid "), "{shown}");
    assert!(verified.status.success() && stdout(&verified).contains("4 entries"), "{}", stdout(&verified));
    let path = house.state().join("audit.log");
    let text = fs::read_to_string(&path).unwrap().replace("peer add laptop", "peer add nobody");
    fs::write(&path, text).unwrap();
    let altered = house.call(&["audit", "verify"]);
    assert!(!altered.status.success() && stderr(&altered).contains("line 3"), "{}", stderr(&altered));
    drop(running);
}

#[test]
fn who_asks_for_a_host_of_others_is_written_down_and_for_one_of_nobody_is_not() {
    let house = House::new();
    let mut running = house.start();
    let https = running.address("/ingress/https/0");
    let hello = |name: &str| {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
        let mut tls = rustls::ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap();
        let mut stream = patient(https);
        assert!(tls.complete_io(&mut stream).is_err(), "{name}");
        // Until it is closed: then it is noted.
        let _ = stream.read_to_end(&mut Vec::new());
    };

    for name in ["admin.home.arpa", "never.home.arpa", "Admin.Home.Arpa", "admin.home.arpa"] {
        hello(name);
    }
    std::thread::sleep(Duration::from_millis(300));
    running.signal(libc::SIGTERM);
    assert_eq!(running.end(), Some(0));

    let shown = stdout(&house.call(&["audit", "show"]));
    let line = shown.lines().find(|line| line.contains("asked for")).unwrap_or_else(|| panic!("{shown}"));
    assert!(
        line.contains("host 127.0.0.0/24") && line.contains("asked for admin.home.arpa: refused, 3 times"),
        "{shown}"
    );
    assert!(!shown.contains("never.home.arpa"), "{shown}");
}

#[test]
fn a_peer_does_not_get_what_the_house_has() {
    let house = House::new();
    // Of what is on the wire here nothing is known but that it is an address of this box.
    let own = nix::ifaddrs::getifaddrs().unwrap().filter_map(|one| Some(one.address?.as_sockaddr_in()?.ip()));
    let Some(own) = own.into_iter().find(|own| !own.is_loopback()) else {
        return eprintln!("SKIPPED: this box has no address but loopback");
    };
    let running = house.start();
    let [first, second, ..] = own.octets();
    let prefix = format!("{first}.{second}.0.0/16");

    let refused = house.call(&["peer", "add", "site", "--address", &prefix]);

    assert_eq!(refused.status.code(), Some(78), "{}", stderr(&refused));
    assert!(stderr(&refused).contains(&prefix) && stderr(&refused).contains("of this house"), "{}", stderr(&refused));
    assert!(!stdout(&house.call(&["peer", "list"])).contains("site"));
    drop(running);
}
