//! One process after another on the same listeners, while clients of every kind go on.

use std::{
    net::{IpAddr, UdpSocket},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use hearthgate::vpn::{client::Tunnel, keys::PublicKey};

use super::*;

/// What one kind of client came to.
struct Tally {
    served: AtomicUsize,
    lost: Mutex<Vec<String>>,
}

impl Tally {
    const fn new() -> Self {
        Self { served: AtomicUsize::new(0), lost: Mutex::new(Vec::new()) }
    }

    fn count(&self, served: Result<(), String>) {
        match served {
            Ok(()) => _ = self.served.fetch_add(1, Ordering::Relaxed),
            Err(why) => self.lost.lock().unwrap().push(why),
        }
    }
}

/// A question for the address of `nas.home.arpa`.
fn question(id: u16) -> Vec<u8> {
    let mut question = id.to_be_bytes().to_vec();
    question.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in ["nas", "home", "arpa"] {
        question.push(u8::try_from(label.len()).unwrap());
        question.extend(label.as_bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    question
}

fn is_answer(answer: &[u8], id: u16) -> Result<(), String> {
    let is_ours = answer.get(..2) == Some(&id.to_be_bytes()) && answer.ends_with(&[192, 168, 1, 10]);
    is_ours.then_some(()).ok_or_else(|| format!("answered {answer:?}"))
}

/// Asks until it is over, a new socket for each question.
fn ask_datagrams(to: SocketAddr, over: &AtomicBool, tally: &Tally) {
    for id in (0..=u16::MAX).cycle() {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(&question(id), to).unwrap();
        let mut answer = [0; 512];
        // A wait with a time-out ends when the whole process was stopped for a moment, too (signal(7)).
        let read = loop {
            match socket.recv(&mut answer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                read => break read.map_err(|error| format!("datagram: {error}")),
            }
        };
        tally.count(read.and_then(|length| is_answer(&answer[..length], id)));
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Asks until it is over, a few questions for each connection.
fn ask_streams(to: SocketAddr, over: &AtomicBool, tally: &Tally) {
    let ask = |stream: &mut TcpStream, id: u16| -> std::io::Result<Vec<u8>> {
        let question = question(id);
        let framed = [&u16::try_from(question.len()).unwrap().to_be_bytes()[..], &question].concat();
        stream.write_all(&framed)?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    while !over.load(Ordering::Relaxed) {
        let mut stream = patient(to);
        for id in 0..5 {
            let answer = ask(&mut stream, id).map_err(|error| format!("stream: {error}"));
            tally.count(answer.and_then(|answer| is_answer(&answer, id)));
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Fetches the page until it is over, on one connection for as long as the edge keeps it.
fn fetch(house: &House, to: SocketAddr, over: &AtomicBool, tally: &Tally, each: usize) {
    while !over.load(Ordering::Relaxed) {
        let mut stream = match secure_to(house, to) {
            Ok(stream) => stream,
            Err(error) => return tally.count(Err(format!("no connection: {error}"))),
        };
        for _ in 0..each {
            let head = fetch_one(&mut stream, "/").map_err(|error| format!("request: {error}"));
            let closes = head.as_ref().is_ok_and(|head| head.to_lowercase().contains("connection: close"));
            let good = head.and_then(|head| head.starts_with("HTTP/1.1 200").then_some(()).ok_or(head));
            let failed = good.is_err();
            tally.count(good);
            if closes || failed || over.load(Ordering::Relaxed) {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn secure_to(house: &House, to: SocketAddr) -> std::io::Result<Secure> {
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(secured(house, stream))
}

fn fetch_one(stream: &mut Secure, path: &str) -> std::io::Result<String> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: welcome.home.arpa\r\n\r\n").as_bytes())?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).map_err(std::io::Error::other)?;
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    stream.read_exact(&mut vec![0; length.unwrap_or_default()])?;
    Ok(head)
}

/// Asks and connects through one tunnel until it is over. Like every stub resolver and every program, it tries again
/// after a while: a handshake that was lost comes again after five seconds, as WireGuard has it.
async fn tunnel(running: &Running<'_>, over: &AtomicBool, asked: &Tally, connected: &Tally) {
    let status = running.status();
    let key = hearthgate::config::tour_key(&running.house.state()).unwrap();
    let gate: PublicKey = status["vpn"]["public_key"].as_str().unwrap().parse().unwrap();
    let endpoint = status["vpn"]["listen"][0].as_str().unwrap().parse().unwrap();
    let own: IpAddr = "10.77.0.2".parse().unwrap();
    let tunnel = Tunnel::connect(&key, &gate, None, own, endpoint).await.unwrap();
    let server: SocketAddr = "10.77.0.1:53".parse().unwrap();
    for id in (0..=u16::MAX).cycle() {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let mut answer = Err("no answer in the tunnel".to_owned());
        for _ in 0..30 {
            let question = question(id);
            let exchange = tunnel.udp_exchange(server, &question);
            if let Ok(Ok(got)) = tokio::time::timeout(Duration::from_secs(1), exchange).await {
                answer = is_answer(&got, id);
                break;
            }
        }
        asked.count(answer);
        let mut stream = tunnel.tcp("10.77.0.1:80".parse().unwrap()).await;
        for _ in 0..4 {
            if stream.is_err() {
                stream = tunnel.tcp("10.77.0.1:80".parse().unwrap()).await;
            }
        }
        connected.count(stream.map(drop).map_err(|error| format!("tunnel: {error}")));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A server that thinks for a while before it answers.
fn thinker() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                std::thread::sleep(Duration::from_secs(3));
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Who: thinker\r\n\r\nwell")
            });
        }
    });
    address
}

impl House {
    /// Ports stay the same over several processes.
    fn fix_ports(&self) {
        let mut text = self.text();
        while text.contains("127.0.0.1:0\"") {
            let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            text = text.replacen("127.0.0.1:0\"", &format!("{free}\""), 1);
        }
        self.write(&text);
    }

    fn start_taking_over(&self) -> Running<'_> {
        let mut command = self.run_command();
        command.arg("--take-over");
        self.start_by(command)
    }
}

#[test]
fn the_next_process_takes_over_and_nobody_notices() {
    let house = House::new();
    house.fix_ports();
    house.write(&format!(
        "{}\n[[route]]\nhost = \"welcome.home.arpa\"\npath = \"/slow\"\naccess = \"public\"\nto = \"http://{}\"\n",
        house.text(),
        thinker()
    ));
    let mut first = house.start();
    let (dns, https) = (first.address("/dns/listen/0"), first.address("/ingress/https/0"));
    let over = AtomicBool::new(false);
    let [datagrams, streams, kept, fresh, asked, connected] = [const { Tally::new() }; 6];
    let runtime = tokio::runtime::Runtime::new().unwrap();

    let slow = std::thread::scope(|scope| {
        // However this ends, the clients end too.
        let _over = Over(&over);
        scope.spawn(|| ask_datagrams(dns, &over, &datagrams));
        scope.spawn(|| ask_streams(dns, &over, &streams));
        scope.spawn(|| fetch(&house, https, &over, &kept, 1000));
        scope.spawn(|| fetch(&house, https, &over, &fresh, 1));
        let inside = &first;
        let (over, asked, connected) = (&over, &asked, &connected);
        runtime.block_on(async {
            // The tunnel outlives every process of the gate's.
            let clients = tunnel(inside, over, asked, connected);
            let processes = async {
                tokio::time::sleep(Duration::from_millis(500)).await;
                let mut stream = secure_to(&house, https).unwrap();
                let slow = tokio::task::spawn_blocking(move || fetch_one(&mut stream, "/slow"));
                tokio::time::sleep(Duration::from_millis(500)).await;
                let second = tokio::task::block_in_place(|| house.start_taking_over());
                tokio::time::sleep(Duration::from_secs(2)).await;
                let third = tokio::task::block_in_place(|| house.start_taking_over());
                tokio::time::sleep(Duration::from_secs(2)).await;
                over.store(true, Ordering::Relaxed);
                (slow.await.unwrap(), second, third)
            };
            let ((), (slow, mut second, third)) = tokio::join!(clients, processes);
            assert_eq!(second.end(), Some(0));
            assert!(second.log().contains("handed over"));
            assert_eq!(third.status()["generation"], 1);
            slow
        })
    });

    assert_eq!(first.end(), Some(0));
    let log = first.log();
    assert!(log.contains("handed over"), "{log}");
    assert!(slow.unwrap().contains("thinker"));
    for (name, tally) in [
        ("datagrams", &datagrams),
        ("streams", &streams),
        ("kept connections", &kept),
        ("new connections", &fresh),
        ("questions in the tunnel", &asked),
        ("connections in the tunnel", &connected),
    ] {
        let (served, lost) = (tally.served.load(Ordering::Relaxed), tally.lost.lock().unwrap());
        eprintln!("{name}: {served} served, {} lost", lost.len());
        assert!(lost.is_empty() && served > 20, "{log}\n{name}: {served} served, lost {lost:?}");
    }
}

/// Says that it is over when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_next_process_that_cannot_begin_leaves_the_first_as_it_was() {
    let house = House::new();
    house.fix_ports();
    let running = house.start();
    let good = house.text();
    let elsewhere =
        good.replace("to = \"builtin:welcome\"", "to = \"https://nas\"\nupstream_tls = { ca = \"/nowhere\" }");
    house.write(&elsewhere);
    let mut command = house.run_command();
    command.arg("--take-over");

    let failed = command.output().unwrap();

    assert!(!failed.status.success());
    assert!(stderr(&failed).contains("/nowhere"), "{}", stderr(&failed));
    assert_eq!(running.status()["generation"], 1);
    assert!(page(&mut secure(&running)).starts_with("HTTP/1.1 200"));
    house.write(&good);
    let second = house.start_taking_over();
    assert!(page(&mut secure(&second)).starts_with("HTTP/1.1 200"));
}

#[test]
fn with_nobody_to_take_over_from_it_starts_as_usual() {
    let house = House::new();

    let running = house.start_taking_over();

    assert!(page(&mut secure(&running)).starts_with("HTTP/1.1 200"));
}

#[test]
fn the_service_manager_is_told_of_the_next_process() {
    let house = House::new();
    house.fix_ports();
    let manager = ServiceManager::new(&house);
    let heard = || manager.hear();
    let mut first = house.start_by(manager.command(&house));

    let second = house.start_taking_over();

    let told = std::iter::repeat_with(heard).find(|state| state.starts_with("MAINPID")).unwrap();
    assert_eq!(told, format!("MAINPID={}", second.child.id()));
    let ready = std::iter::repeat_with(heard).find(|state| state == "READY=1");
    assert!(ready.is_some());
    assert_eq!(first.end(), Some(0));
    // The manager waits for the new process's word from now on, and gets it.
    assert_eq!(heard(), "WATCHDOG=1");
}

#[test]
fn a_next_process_that_dies_as_it_begins_does_not_let_the_first_end_as_if_all_were_well() {
    let house = House::new();
    house.fix_ports();
    let mut running = house.start();

    let inherited = hearthgate::handover::take(&house.state()).unwrap().unwrap();
    let promise = inherited.predecessor.release().unwrap();
    let served = page(&mut secure(&running));
    drop((promise, inherited.descriptors));

    assert!(served.starts_with("HTTP/1.1 200"), "it serves until the next one does: {served}");
    assert_eq!(running.end(), Some(1));
    let again = house.start();
    assert!(page(&mut secure(&again)).starts_with("HTTP/1.1 200"));
}

#[test]
fn while_a_change_waits_nobody_takes_over() {
    let house = House::new();
    house.fix_ports();
    let running = house.start();
    assert!(house.call(&["peer", "add", "phone"]).status.success());
    assert!(house.call(&["user", "add", "alice", "--role", "owner", "--peer", "phone"]).status.success());
    assert!(house.call(&["peer", "rotate", "phone"]).status.success());

    assert!(hearthgate::handover::take(&house.state()).is_err());

    assert!(house.call(&["confirm"]).status.success());
    let second = house.start_taking_over();
    drop(running);
    assert!(page(&mut secure(&second)).starts_with("HTTP/1.1 200"));
}
