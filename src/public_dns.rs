//! What the public DNS says, past the house's own view, and what the servers of a zone say past every cache.
//!
//! Whoever changes a record at a provider wants to know when others see it: then the zone's own servers are
//! asked, each of them.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// For one question to one server.
const DEADLINE: Duration = Duration::from_secs(5);
/// Aliases in a row.
const ALIASES: usize = 8;
/// Servers of a zone that are asked.
const SERVERS: usize = 16;

type Answer = Pin<Box<dyn Future<Output = io::Result<Vec<Record>>> + Send>>;

/// Asks the public DNS, as a handle: who needs it does not know the plane that resolves.
#[derive(Clone)]
pub struct PublicDns {
    ask: Arc<dyn Fn(Name, RecordType) -> Answer + Send + Sync>,
    /// Where the servers of zones listen.
    port: u16,
}

impl std::fmt::Debug for PublicDns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PublicDns")
    }
}

/// Where a record belongs, and who answers for it.
#[derive(Clone, Debug)]
pub struct Zone {
    /// The name, behind all aliases.
    pub name: Name,
    /// The zone that it is in.
    pub origin: Name,
    /// The zone's servers.
    pub servers: Vec<SocketAddr>,
}

impl PublicDns {
    /// Asks with this function, which returns the answer section; a name that does not exist has none.
    pub fn new<F>(ask: impl Fn(Name, RecordType) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<Vec<Record>>> + Send + 'static,
    {
        Self { ask: Arc::new(move |name, rtype| Box::pin(ask(name, rtype))), port: 53 }
    }

    /// Finds the servers of zones on another port than 53.
    pub fn with_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Asks the resolvers that the system names: what a box without a DNS plane does.
    pub fn system() -> Self {
        Self::new(async |name, rtype| {
            let text = std::fs::read_to_string("/etc/resolv.conf")?;
            let servers =
                text.lines().filter_map(|line| line.strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok());
            let mut last = io::Error::new(io::ErrorKind::NotFound, "/etc/resolv.conf names no server");
            for server in servers {
                let mut question = query(name.clone(), rtype);
                question.metadata.recursion_desired = true;
                match exchange((server, 53).into(), &question).await {
                    Ok(message) => return Ok(message.answers),
                    Err(error) => last = error,
                }
            }
            Err(last)
        })
    }

    /// Returns the answer section.
    pub async fn records(&self, name: &Name, rtype: RecordType) -> io::Result<Vec<Record>> {
        timeout(2 * DEADLINE, (self.ask)(name.clone(), rtype)).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Finds where a record of this name belongs.
    pub async fn zone_of(&self, name: &Name) -> io::Result<Zone> {
        let mut name = name.to_lowercase();
        name.set_fqdn(true);
        for _ in 0..ALIASES {
            let found = self.records(&name, RecordType::CNAME).await?;
            let alias = found.into_iter().find_map(|record| match record.data {
                RData::CNAME(alias) if record.name == name => Some(alias.0),
                _ => None,
            });
            let Some(alias) = alias else { break };
            name = alias.to_lowercase();
        }
        let mut origin = name.clone();
        while !origin.is_root() {
            let found = self.records(&origin, RecordType::NS).await?;
            let servers: Vec<Name> = found
                .into_iter()
                .filter_map(|record| match record.data {
                    RData::NS(server) if record.name == origin => Some(server.0),
                    _ => None,
                })
                .take(SERVERS)
                .collect();
            if !servers.is_empty() {
                let servers = self.addresses(&servers).await;
                if servers.is_empty() {
                    return Err(io::Error::other(format!("the servers of {origin} have no address")));
                }
                return Ok(Zone { name, origin, servers });
            }
            origin = origin.base_name();
        }
        Err(io::Error::new(io::ErrorKind::NotFound, format!("{name} is in no zone")))
    }

    async fn addresses(&self, servers: &[Name]) -> Vec<SocketAddr> {
        let mut addresses = Vec::new();
        for server in servers {
            for rtype in [RecordType::A, RecordType::AAAA] {
                let found = self.records(server, rtype).await.unwrap_or_default();
                addresses.extend(found.into_iter().filter_map(|record| record.data.ip_addr()));
            }
        }
        addresses.sort();
        addresses.dedup();
        addresses.truncate(SERVERS);
        addresses.into_iter().map(|address| SocketAddr::new(address, self.port)).collect()
    }
}

impl Zone {
    /// Says whether every server of the zone that answers shows this. An error if none answers.
    pub async fn shows(&self, rtype: RecordType, wanted: impl Fn(&[Record]) -> bool) -> io::Result<bool> {
        let mut last = io::Error::from(io::ErrorKind::NotConnected);
        let mut answered = false;
        for server in &self.servers {
            match exchange(*server, &query(self.name.clone(), rtype)).await {
                Ok(message) if !matches!(message.response_code, ResponseCode::NoError | ResponseCode::NXDomain) => {
                    last = io::Error::other(format!("{server} answers {}", message.response_code));
                }
                Ok(message) if !wanted(&message.answers) => return Ok(false),
                Ok(_) => answered = true,
                Err(error) => last = error,
            }
        }
        if answered { Ok(true) } else { Err(last) }
    }

    /// Says whether every server that answers shows this text.
    pub async fn shows_text(&self, text: &str) -> io::Result<bool> {
        let is_it = |record: &Record| match &record.data {
            RData::TXT(txt) => txt.txt_data.concat() == text.as_bytes(),
            _ => false,
        };
        self.shows(RecordType::TXT, |records| records.iter().any(is_it)).await
    }
}

fn query(name: Name, rtype: RecordType) -> Message {
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(name, rtype));
    message
}

/// Sends a message over TCP and returns what comes back.
async fn exchange(server: SocketAddr, message: &Message) -> io::Result<Message> {
    let mut message = message.clone();
    message.metadata.id = random();
    let answer = exchange_bytes(server, &message.to_vec().map_err(io::Error::other)?).await?;
    let answer = Message::from_vec(&answer).map_err(io::Error::other)?;
    if answer.id != message.id || answer.message_type != MessageType::Response || answer.queries != message.queries {
        return Err(io::Error::other(format!("{server} answers something else")));
    }
    Ok(answer)
}

/// The same with bytes as they are.
pub async fn exchange_bytes(server: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let talk = async {
        let mut stream = TcpStream::connect(server).await?;
        let length = u16::try_from(message.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], message].concat()).await?;
        let mut answer = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    };
    timeout(DEADLINE, talk).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

pub(crate) fn random() -> u16 {
    let mut bytes = [0; 2];
    // Over TCP the number tells answers apart, it does not guard them.
    let _ = getrandom::fill(&mut bytes);
    u16::from_ne_bytes(bytes)
}
