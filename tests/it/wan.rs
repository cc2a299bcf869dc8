//! Names that follow the address of this box: with a router, services and name servers of our own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use hearthgate::{
    lookup::Lookup,
    metrics::Metrics,
    provider::{Dyndns2, Provider, Reach, Token},
    public_dns::PublicDns,
    supervise::{Phase, Stopper, stop},
    wan::{Config, Names, Places, Source, Status},
};
use hickory_proto::{
    op::{Message, MessageType, OpCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, NS},
    },
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, UdpSocket},
};

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// A zone with one server, whose only name has this address.
struct Zone {
    server: SocketAddr,
    address: Arc<Mutex<Ipv4Addr>>,
}

impl Zone {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let address = Arc::new(Mutex::new(Ipv4Addr::new(192, 0, 2, 1)));
        let shown = address.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut bytes = vec![0; stream.read_u16().await.unwrap().into()];
                stream.read_exact(&mut bytes).await.unwrap();
                let question = Message::from_vec(&bytes).unwrap();
                let mut answer = Message::new(question.id, MessageType::Response, OpCode::Query);
                answer.queries = question.queries.clone();
                let asked = &question.queries[0];
                if asked.query_type() == RecordType::A {
                    let data = RData::A(A(*shown.lock().unwrap()));
                    answer.add_answer(Record::from_rdata(asked.name().clone(), 60, data));
                }
                let answer = answer.to_vec().unwrap();
                let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                stream.write_all(&[&length[..], &answer].concat()).await.unwrap();
            }
        });
        Self { server, address }
    }

    fn public(&self) -> PublicDns {
        let ask = |asked: Name, rtype: RecordType| async move {
            let data = match (asked.to_ascii().as_str(), rtype) {
                ("home.example.", RecordType::NS) => RData::NS(NS(name("ns.home.example."))),
                ("ns.home.example.", RecordType::A) => RData::A(A(Ipv4Addr::LOCALHOST)),
                _ => return Ok(Vec::new()),
            };
            Ok(vec![Record::from_rdata(asked, 60, data)])
        };
        PublicDns::new(ask).with_port(self.server.port())
    }
}

/// A web server that answers each path by this function.
async fn web(answer: impl Fn(&str) -> String + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            let mut first = String::new();
            stream.read_line(&mut first).await.unwrap();
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                if line.trim().is_empty() {
                    break;
                }
            }
            let body = answer(first.split(' ').nth(1).unwrap());
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).await.unwrap();
        }
    });
    address
}

/// A router whose outer address is this.
async fn router(outer: [u8; 4]) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut asked = [0; 16];
        while let Ok((length, from)) = socket.recv_from(&mut asked).await {
            assert_eq!(&asked[..length], [0, 0]);
            socket.send_to(&[&[0, 128, 0, 0, 0, 0, 0, 9][..], &outer].concat(), from).await.unwrap();
        }
    });
    address
}

struct House {
    names: Arc<Names>,
    stopper: Stopper,
}

impl House {
    fn start(zone: &Zone, service: SocketAddr, address: Source, places: Places) -> Self {
        let reach = Reach { public: zone.public(), ..Reach::new(Lookup::system()) };
        let names = Arc::new(Names::new(reach, places, &Metrics::new()));
        let provider = Provider::Dyndns2(Dyndns2 {
            url: format!("http://{service}/update?hostname={{name}}&myip={{ip}}"),
            username: "house".into(),
            password: Token("secret".into()),
        });
        names.configure(Some(Config {
            names: vec![name("home.example."), name("*.home.example.")],
            provider,
            address,
        }));
        let (stopper, told) = stop();
        tokio::spawn(names.clone().run(told));
        Self { names, stopper }
    }

    async fn until(&self, good: impl Fn(&Status) -> bool) -> Status {
        let begun = Instant::now();
        loop {
            let status = self.names.status().unwrap();
            if good(&status) {
                return status;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{status:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.stopper.advance(Phase::Now);
    }
}

/// A dynamic DNS service that does what it is told, and notes it.
async fn service(zone: &Zone) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let (address, asked) = (zone.address.clone(), Arc::new(Mutex::new(Vec::new())));
    let noted = asked.clone();
    let at = web(move |path| {
        noted.lock().unwrap().push(path.to_owned());
        *address.lock().unwrap() = path.rsplit_once('=').unwrap().1.parse().unwrap();
        "good".into()
    });
    (at.await, asked)
}

fn places(router: Option<SocketAddr>, services: Vec<String>) -> Places {
    Places { router, services, interfaces: false }
}

#[tokio::test]
async fn names_follow_the_routers_outer_address_until_their_servers_show_it() {
    let zone = Zone::start().await;
    let (service, asked) = service(&zone).await;
    let router = router([9, 9, 9, 9]).await;

    let house = House::start(&zone, service, Source::Router, places(Some(router), Vec::new()));
    let status = house.until(|status| !status.names.is_empty()).await;

    assert_eq!(status.addresses, [std::net::IpAddr::from([9, 9, 9, 9])]);
    assert!(status.names.values().all(Option::is_none), "{status:?}");
    assert_eq!(status.names.keys().collect::<Vec<_>>(), ["*.home.example", "home.example"]);
    // The second name was there already: nothing was told.
    assert_eq!(*asked.lock().unwrap(), ["/update?hostname=home.example&myip=9.9.9.9"]);
}

#[tokio::test]
async fn one_service_alone_is_not_believed() {
    let zone = Zone::start().await;
    let (dyndns, asked) = service(&zone).await;
    let says = async |text: &'static str| format!("http://{}/", web(move |_| text.into()).await);
    let (one, liar, other) = (says("9.9.9.9\n").await, says("8.8.8.8").await, says("9.9.9.9").await);

    let alone = places(None, vec![one.clone(), liar.clone()]);
    let house = House::start(&zone, dyndns, Source::Services, alone);
    let status = house.until(|status| status.problem.is_some()).await;
    drop(house);
    assert!(status.addresses.is_empty() && asked.lock().unwrap().is_empty());

    let house = House::start(&zone, dyndns, Source::Services, places(None, vec![liar, one, other]));
    let status = house.until(|status| !status.addresses.is_empty()).await;
    assert_eq!(status.addresses, [std::net::IpAddr::from([9, 9, 9, 9])]);
}

#[tokio::test]
async fn a_router_behind_another_is_told_and_so_is_a_service_that_refuses() {
    let zone = Zone::start().await;
    let refuses = web(|_| "badauth".into()).await;

    let inner = router([100, 64, 0, 9]).await;
    let house = House::start(&zone, refuses, Source::Router, places(Some(inner), Vec::new()));
    let status = house.until(|status| status.problem.is_some()).await;
    assert!(status.problem.unwrap().contains("another router"));
    drop(house);

    let outer = router([9, 9, 9, 9]).await;
    let house = House::start(&zone, refuses, Source::Router, places(Some(outer), Vec::new()));
    let status = house.until(|status| !status.names.is_empty()).await;
    assert!(status.names.values().all(|problem| problem.as_ref().unwrap().contains("badauth")), "{status:?}");
}
