//! How the process begins, runs and ends.

use super::*;

#[test]
fn status_tells_what_runs() {
    let house = House::new();
    let running = house.start();

    let status = running.status();
    let text = stdout(&house.call(&["status"]));

    let names: Vec<&str> = status["planes"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["dns", "ingress", "vpn", "onlink", "neighbours", "watch", "metrics", "confirm", "control"]);
    assert!(status["planes"].as_array().unwrap().iter().all(|plane| plane["running"] == true));
    assert_eq!(status["generation"], 1);
    assert_eq!(status["vpn"]["peers"][0]["name"], "tour");
    for word in ["dns", "ingress", "vpn", "running", "generation 1", "cert", "welcome.home.arpa", "no handshake yet"] {
        assert!(text.contains(word), "{word}:\n{text}");
    }
}

#[test]
fn sigterm_ends_well_and_a_second_one_at_once() {
    let house = House::new();
    let mut running = house.start();

    running.signal(libc::SIGTERM);

    assert_eq!(running.end(), Some(0));
    assert!(!house.state().join("control.sock").exists());

    house.write(&house.text().replace("grace = \"2s\"", "grace = \"1h\""));
    let mut running = house.start();
    // A request that never ends keeps the ingress busy.
    let mut stream = patient(running.address("/ingress/http/0"));
    stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    running.signal(libc::SIGTERM);
    std::thread::sleep(Duration::from_millis(200));
    running.signal(libc::SIGTERM);

    assert_eq!(running.end(), Some(0));
}

#[test]
fn the_service_manager_is_told_how_it_goes() {
    let house = House::new();
    let manager = ServiceManager::new(&house);
    let heard = || manager.hear();

    let mut running = house.start_by(manager.command(&house));
    let first = [heard(), heard(), heard()];
    running.signal(libc::SIGTERM);

    assert_eq!(first, ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]);
    let last = std::iter::repeat_with(heard).find(|state| state != "WATCHDOG=1").unwrap();
    assert_eq!(last, "STOPPING=1");
    assert_eq!(running.end(), Some(0));
}

#[test]
fn what_did_not_finish_in_time_is_named() {
    let house = House::new();
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    house.write(&format!(
        "{}\n[[route]]\nhost = \"welcome.home.arpa\"\npath = \"/slow\"\naccess = \"public\"\nto = \"http://{}\"\n",
        house.text(),
        upstream.local_addr().unwrap()
    ));
    let mut running = house.start();
    let mut stream = secure(&running);
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: welcome.home.arpa\r\n\r\n").unwrap();
    let _asked = upstream.accept().unwrap();
    assert_eq!(running.status()["ingress"]["under_way"]["welcome.home.arpa/slow"], 1);

    running.signal(libc::SIGTERM);

    assert_eq!(running.end(), Some(0));
    let log = running.log();
    assert!(log.contains("did not finish in time") && log.contains("welcome.home.arpa/slow: 1"), "{log}");
}

#[test]
fn a_second_edge_on_the_same_state_is_told_of_the_first() {
    let house = House::new();
    let running = house.start();

    let second = house.run_command().output().unwrap();

    assert_eq!(second.status.code(), Some(1), "{}", stderr(&second));
    let expected = format!("already running on the state in {}", house.state().display());
    assert!(stderr(&second).contains(&expected), "{}", stderr(&second));
    assert!(stderr(&second).contains(&running.child.id().to_string()), "{}", stderr(&second));
    assert_eq!(running.status()["generation"], 1);
}

#[test]
fn a_taken_port_is_named_with_its_key() {
    let house = House::new();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    house.write(&house.text().replace("https = [\"127.0.0.1:0\"]", &format!("https = [\"{taken}\"]")));

    let output = house.run_command().output().unwrap();

    assert_eq!(output.status.code(), Some(1));
    let expected = format!("TCP port {} on 127.0.0.1 is taken", taken.port());
    assert!(stderr(&output).contains(&expected), "{}", stderr(&output));
    assert!(stderr(&output).contains("`ingress.https`"), "{}", stderr(&output));
}

#[test]
fn root_without_a_user_is_refused() {
    if !is_root() {
        eprintln!("skipped: this needs root");
        return;
    }
    let house = House::new();
    fs::remove_dir_all(house.state()).unwrap();

    let output = house.command(&["run", "--config", house.file().to_str().unwrap()]).output().unwrap();

    assert_eq!(output.status.code(), Some(1));
    assert!(!house.state().exists(), "nothing is written before it");
    assert!(stderr(&output).contains("`node.user`"), "{}", stderr(&output));
}

#[test]
fn nothing_is_left_of_what_a_process_may() {
    let house = House::new();
    let running = house.start();

    let status = fs::read_to_string(format!("/proc/{}/status", running.child.id())).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();

    for set in ["CapPrm:", "CapEff:", "CapInh:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    if is_root() {
        assert_eq!(field("CapBnd:"), "0000000000000000");
        assert!(!field("Uid:").split_whitespace().any(|uid| uid == "0"), "{}", field("Uid:"));
    }
    assert!(running.status()["privileges"].as_str().unwrap().contains("capabilities: none"));
}

#[test]
fn as_many_sockets_are_open_as_the_system_allows() {
    let house = House::new();
    let program = house.run_command();
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -S -n 256; exec \"$0\" \"$@\""]).arg(program.get_program()).args(program.get_args());

    let running = house.start_by(limited);

    let limits = fs::read_to_string(format!("/proc/{}/limits", running.child.id())).unwrap();
    let open = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<&str> = open.split_whitespace().filter(|word| word.parse::<u64>().is_ok()).collect();
    assert_eq!(numbers[0], numbers[1], "{open}");
}

#[test]
fn nothing_is_left_of_what_the_helper_may() {
    if !is_root() || Command::new("setpriv").arg("--version").output().is_err() {
        return eprintln!("SKIPPED: this needs root and setpriv");
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let (program, seen) = (folder.path().join("hook"), folder.path().join("seen"));
    fs::write(&program, format!("#!/bin/sh\ncat /proc/self/status > {0}.new && mv {0}.new {0}\n", seen.display()))
        .unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    // As a service manager starts an ordinary user with capabilities that survive a start.
    let as_service = ["--reuid=nobody", "--clear-groups", "--inh-caps=+net_admin", "--ambient-caps=+net_admin", "--"];
    let start = |command: &[&str]| {
        let mut started = Command::new("setpriv");
        started.args(as_service).args(command).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let field =
        |status: &str, name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    let with = start(&["cat", "/proc/self/status"]).wait_with_output().unwrap();
    assert_ne!(field(&stdout(&with), "CapEff:"), "0000000000000000", "nothing was there to be dropped");

    let mut helper = start(&[PROGRAM, "run-hooks", program.to_str().unwrap()]);
    let asked = format!("present\t_acme-challenge.home.example\tabc\t{}\n", program.display());
    helper.stdin.take().unwrap().write_all(asked.as_bytes()).unwrap();
    let answer = helper.wait_with_output().unwrap();

    assert_eq!(stdout(&answer), "ok\n", "{}", stderr(&answer));
    let status = fs::read_to_string(&seen).unwrap();
    for set in ["CapPrm:", "CapEff:", "CapInh:", "CapAmb:"] {
        assert_eq!(field(&status, set), "0000000000000000", "{set}");
    }
    assert_eq!(field(&status, "NoNewPrivs:"), "1");
}

#[test]
fn no_memory_is_taken_in_huge_pages_not_even_before_it_begins() {
    let house = House::new();
    let running = house.start();

    let of_process = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", running.child.id()));
    let Ok(mapped) = of_process("smaps_rollup") else {
        eprintln!("SKIPPED: this kernel does not tell what a process has mapped");
        return;
    };

    assert!(of_process("status").unwrap().lines().any(|line| line.replace('\t', " ") == "THP_enabled: 0"));
    let huge = mapped.lines().find_map(|line| line.strip_prefix("AnonHugePages:")).unwrap();
    assert_eq!(huge.trim(), "0 kB");
}
