//! Who holds public zones: what is sent to them, and what is made of what they say.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use hearthgate::{
    lookup::Lookup,
    provider::{AcmeDns, Algorithm, Cloudflare, Desec, Hetzner, Provider, Reach, Rfc2136, Token},
    public_dns::Zone,
};
use hickory_proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{DNSClass, Name, RecordType, TSigner, rdata::tsig::TsigAlgorithm},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
};

fn zone(name: &str) -> Zone {
    let name = Name::from_ascii(name).unwrap();
    Zone { name, origin: Name::from_ascii("home.example.").unwrap(), servers: Vec::new() }
}

fn reach() -> Reach {
    Reach::new(Lookup::system())
}

fn token() -> Token {
    Token("secret".into())
}

/// A server that notes what it is asked, `METHOD PATH BODY`, and answers by what is in it.
async fn api(answers: &'static [(&'static str, &'static str)]) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = asked.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            let (mut first, mut length, mut known) = (String::new(), 0, false);
            stream.read_line(&mut first).await.unwrap();
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                let line = line.trim().to_lowercase();
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.parse().unwrap();
                }
                known |= line.contains("secret");
                if line.is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.unwrap();
            let request = first.trim().trim_end_matches(" HTTP/1.1");
            let request = format!("{request} {}", String::from_utf8(body).unwrap()).trim().to_owned();
            let answer = answers.iter().find(|(part, _)| request.starts_with(part)).map(|(_, answer)| *answer);
            let (status, answer) = match answer {
                _ if !known => ("403 Forbidden", "who are you?"),
                Some(answer) => ("200 OK", answer),
                None => ("404 Not Found", "{}"),
            };
            noted.lock().unwrap().push(request);
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (address, asked)
}

#[tokio::test]
async fn cloudflare_gets_the_record_and_loses_only_that() {
    let (address, asked) = api(&[
        ("GET /zones?name=home.example", r#"{"result":[{"id":"z1"}]}"#),
        (
            "GET /zones/z1/dns_records?type=TXT&name=_acme-challenge.home.example",
            r#"{"result":[{"id":"r1","content":"\"other\""},{"id":"r2","content":"\"proof\""}]}"#,
        ),
        ("GET /zones/z1/dns_records?type=A&name=home.example", r#"{"result":[{"id":"r3","content":"192.0.2.1"}]}"#),
        ("POST /zones/z1/dns_records", "{}"),
        ("PATCH /zones/z1/dns_records/r3", "{}"),
        ("DELETE /zones/z1/dns_records/r2", "{}"),
    ])
    .await;
    let provider = Provider::Cloudflare(Cloudflare { token: token(), api: format!("http://{address}") });
    let challenge = zone("_acme-challenge.home.example.");

    provider.present(&reach(), &challenge, "proof").await.unwrap();
    provider.cleanup(&reach(), &challenge, "proof").await.unwrap();
    provider.set(&reach(), &zone("home.example."), &"192.0.2.7".parse().unwrap()).await.unwrap();

    let asked = asked.lock().unwrap();
    assert!(asked[1].contains(r#""content":"\"proof\"","name":"_acme-challenge.home.example""#), "{asked:?}");
    let deleted: Vec<_> = asked.iter().filter(|one| one.starts_with("DELETE")).collect();
    assert_eq!(deleted, ["DELETE /zones/z1/dns_records/r2"]);
    let patched = asked.iter().find(|one| one.starts_with("PATCH")).unwrap();
    assert!(patched.contains(r#""content":"192.0.2.7""#), "{patched}");
}

#[tokio::test]
async fn desec_keeps_the_other_texts_of_a_name() {
    let (address, asked) = api(&[
        ("GET /domains/home.example/rrsets/_acme-challenge/TXT/", r#"{"records":["\"other\""]}"#),
        ("GET /domains/home.example/", r#"{"minimum_ttl":60}"#),
        ("PUT /domains/home.example/rrsets/", "[]"),
    ])
    .await;
    let provider = Provider::Desec(Desec { token: token(), api: format!("http://{address}") });
    let challenge = zone("_acme-challenge.home.example.");

    provider.present(&reach(), &challenge, "proof").await.unwrap();
    provider.cleanup(&reach(), &challenge, "proof").await.unwrap();
    provider.set(&reach(), &zone("home.example."), &"2001:db8::7".parse().unwrap()).await.unwrap();

    let asked = asked.lock().unwrap();
    let put: Vec<_> = asked.iter().filter(|one| one.starts_with("PUT")).collect();
    assert!(put[0].contains(r#""records":["\"other\"","\"proof\""],"subname":"_acme-challenge","ttl":60"#), "{put:?}");
    assert!(put[1].contains(r#""records":["\"other\""]"#), "{put:?}");
    assert!(put[2].contains(r#""records":["2001:db8::7"],"subname":"","ttl":60,"type":"AAAA""#), "{put:?}");
}

#[tokio::test]
async fn hetzner_is_told_actions_and_what_it_does_not_know_is_told_back() {
    let (address, asked) = api(&[
        ("POST /zones/home.example/rrsets/_acme-challenge/TXT/actions/add_records", "{}"),
        ("POST /zones/home.example/rrsets/@/A/actions/add_records", "{}"),
    ])
    .await;
    let provider = Provider::Hetzner(Hetzner { token: token(), api: format!("http://{address}") });

    provider.present(&reach(), &zone("_acme-challenge.home.example."), "proof").await.unwrap();
    provider.set(&reach(), &zone("home.example."), &"192.0.2.7".parse().unwrap()).await.unwrap();
    let unknown = provider.present(&reach(), &zone("b.home.example."), "proof").await.unwrap_err().to_string();

    assert!(asked.lock().unwrap()[0].contains(r#"[{"value":"\"proof\""}]"#));
    assert!(unknown.contains("home.example"), "{unknown}");
}

#[tokio::test]
async fn acme_dns_is_given_the_text_and_a_refusal_is_told() {
    let (address, asked) = api(&[("POST /update", "{}")]).await;
    let account = |password: &str| {
        Provider::AcmeDns(AcmeDns {
            url: format!("http://{address}"),
            username: "house".into(),
            password: Token(password.into()),
            subdomain: "d4".into(),
        })
    };
    let challenge = zone("d4.auth.example.");

    account("secret").present(&reach(), &challenge, "proof").await.unwrap();
    let refused = account("wrong").present(&reach(), &challenge, "proof").await.unwrap_err().to_string();

    assert_eq!(asked.lock().unwrap()[0], r#"POST /update {"subdomain":"d4","txt":"proof"}"#);
    assert!(refused.contains("403"), "{refused}");
}

/// A name server that takes updates signed with its key, and notes them.
async fn primary(key: &'static [u8]) -> (SocketAddr, Arc<Mutex<Vec<Message>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let taken = Arc::new(Mutex::new(Vec::new()));
    let noted = taken.clone();
    let signer =
        TSigner::new(key.to_vec(), TsigAlgorithm::HmacSha256, Name::from_ascii("house.").unwrap(), 300).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut bytes).await.unwrap();
            let update = Message::from_vec(&bytes).unwrap();
            let mut answer = Message::new(update.id, MessageType::Response, OpCode::Update);
            answer.queries = update.queries.clone();
            let answer = match signer.verify_message_byte(&bytes, None, true) {
                Ok((mac, time, _)) => {
                    noted.lock().unwrap().push(update);
                    let context =
                        hickory_proto::rr::TSigResponseContext::new(answer.id, time, signer.clone(), mac, None);
                    let signature = context.sign(&answer.to_vec().unwrap()).unwrap();
                    answer.set_signature(signature);
                    answer.to_vec().unwrap()
                }
                Err(_) => {
                    answer.metadata.response_code = ResponseCode::NotAuth;
                    answer.to_vec().unwrap()
                }
            };
            stream
                .write_all(&[&u16::try_from(answer.len()).unwrap().to_be_bytes()[..], &answer].concat())
                .await
                .unwrap();
        }
    });
    (address, taken)
}

fn signed(server: SocketAddr, key: &[u8]) -> Provider {
    Provider::Rfc2136(Rfc2136 {
        server,
        key_name: Name::from_ascii("house.").unwrap(),
        algorithm: Algorithm::Sha256,
        key: Token(base64::Engine::encode(&base64::prelude::BASE64_STANDARD, key)),
    })
}

#[tokio::test]
async fn rfc2136_updates_are_signed_and_touch_one_record() {
    let (server, taken) = primary(b"a key of the owner's").await;
    let provider = signed(server, b"a key of the owner's");
    let challenge = zone("_acme-challenge.home.example.");

    provider.present(&reach(), &challenge, "proof").await.unwrap();
    provider.cleanup(&reach(), &challenge, "proof").await.unwrap();
    provider.set(&reach(), &zone("home.example."), &"192.0.2.7".parse().unwrap()).await.unwrap();

    let taken = taken.lock().unwrap();
    let classes = |update: &Message| update.authorities.iter().map(|record| record.dns_class).collect::<Vec<_>>();
    assert_eq!(classes(&taken[0]), [DNSClass::IN]);
    assert_eq!(classes(&taken[1]), [DNSClass::NONE], "this record, not the whole set");
    assert_eq!(classes(&taken[2]), [DNSClass::ANY, DNSClass::IN]);
    assert_eq!(taken[2].authorities[1].record_type(), RecordType::A);
    assert!(taken.iter().all(|update| update.queries[0].name().to_ascii() == "home.example."));
}

#[tokio::test]
async fn rfc2136_with_another_key_is_no_success() {
    let (server, taken) = primary(b"a key of the owner's").await;

    let refused = signed(server, b"another").present(&reach(), &zone("a.home.example."), "proof").await;

    assert!(refused.unwrap_err().to_string().contains("refused"));
    assert!(taken.lock().unwrap().is_empty());
}
