//! Decisions of a CrowdSec agent, as its local API gives them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use hearthgate::{
    ingress::{Config, CrowdSec},
    origin::Origin,
    provider::Token,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::{sleep, timeout},
};

use super::{
    LAN,
    edge::{Edge, PATIENCE},
    manners::metrics,
};

/// An agent that answers what it is given, the last of it again and again, and notes what it is asked.
struct Agent {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    answers: Arc<Mutex<VecDeque<(u16, String)>>>,
}

impl Agent {
    async fn start(first: (u16, String)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (asked, answers) = (Arc::default(), Arc::new(Mutex::new(VecDeque::from([first]))));
        let (notes, given): (Arc<Mutex<Vec<String>>>, Arc<Mutex<VecDeque<_>>>) = (Arc::clone(&asked), answers.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut input = Vec::new();
                while !input.ends_with(b"\r\n\r\n") && stream.read_buf(&mut input).await.is_ok_and(|read| read > 0) {}
                notes.lock().unwrap().push(String::from_utf8_lossy(&input).to_lowercase());
                let (status, body) = {
                    let mut given = given.lock().unwrap();
                    if given.len() > 1 { given.pop_front().unwrap() } else { given[0].clone() }
                };
                let head =
                    format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = stream.write_all((head + &body).as_bytes()).await;
            }
        });
        Self { url, asked, answers }
    }

    fn now_says(&self, status: u16, body: &str) {
        *self.answers.lock().unwrap() = VecDeque::from([(status, body.to_owned())]);
    }

    fn listened_to(&self, config: &mut Config) {
        let (url, key) = (self.url.clone(), Token("bouncer-key".into()));
        config.crowdsec = Some(CrowdSec { url, key, every: Duration::from_millis(50), ca: None });
    }

    fn has_asked(&self, what: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| asked.contains(what)).count()
    }
}

fn bans(new: &[&str], deleted: &[&str]) -> String {
    let list = |values: &[&str]| {
        let one = |value: &&str| format!(r#"{{"type":"ban","scope":"Ip","value":"{value}","duration":"1h"}}"#);
        values.iter().map(one).collect::<Vec<_>>().join(",")
    };
    format!(r#"{{"new":[{}],"deleted":[{}]}}"#, list(new), list(deleted))
}

async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap();
}

/// Whoever is kept out is not even told that this is no TLS.
async fn is_out(edge: &Edge, origin: Origin) -> bool {
    let mut stream = edge.connect(origin, 443).await;
    // It may be closed already. What is no TLS is answered in seven bytes, too.
    let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
    let mut said = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut said)).await.unwrap();
    assert!(said.is_empty() || said.len() == 7, "{said:?}");
    said.is_empty()
}

#[tokio::test]
async fn whom_the_agent_bans_is_kept_out_until_it_takes_that_back() {
    let agent = Agent::start((200, bans(&["203.0.113.9", "2001:db8::1"], &[]))).await;
    let edge = Edge::start(|config| agent.listened_to(config));

    until(async || is_out(&edge, Origin::Wan).await).await;
    assert!(!is_out(&edge, LAN).await, "the house is on no list");
    assert!(metrics(&edge).contains("hearthgate_ingress_banned_networks 2"));
    assert!(agent.has_asked("startup=true") == 1 && agent.has_asked("x-api-key: bouncer-key") >= 1);
    agent.now_says(200, r#"{"new":null,"deleted":null}"#);
    until(async || agent.has_asked("startup=false") >= 2).await;
    assert!(is_out(&edge, Origin::Wan).await, "no news are good news");
    agent.now_says(200, &bans(&[], &["203.0.113.9"]));

    until(async || !is_out(&edge, Origin::Wan).await).await;
    assert_eq!(agent.has_asked("startup=true"), 1);
}

#[tokio::test]
async fn an_agent_that_fails_leaves_in_force_what_it_said_and_is_asked_for_all_again() {
    let agent = Agent::start((200, bans(&["203.0.113.9"], &[]))).await;
    let edge = Edge::start(|config| agent.listened_to(config));
    until(async || is_out(&edge, Origin::Wan).await).await;

    agent.now_says(500, "out of order");
    until(async || edge.plane.status().bans[0].problem.is_some()).await;
    assert!(is_out(&edge, Origin::Wan).await);
    edge.reload(|config| agent.listened_to(config));
    assert!(is_out(&edge, Origin::Wan).await, "a reload forgets nothing");
    let failures = metrics(&edge);
    assert!(failures.contains("crowdsec_failures_total") && !failures.contains("crowdsec_failures_total 0"));
    agent.now_says(200, &bans(&["198.51.100.1"], &[]));

    until(async || !is_out(&edge, Origin::Wan).await).await;
    assert!(agent.has_asked("startup=true") >= 2);
    until(async || edge.plane.status().bans[0].problem.is_none()).await;
    edge.reload(|_| {});
    assert!(edge.plane.status().bans.is_empty());
}
