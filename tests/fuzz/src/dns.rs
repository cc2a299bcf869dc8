/// A message: what the front says to it can be read and fits the way that it goes; what is said without knowing any name
/// is an answer to it, and is read as one.
pub fn dns_message(bytes: &[u8]) {
    hearthgate::dns::fuzz::message(bytes);
    let Some(answer) = hearthgate::dns::read_message(bytes) else { return };
    let header = answer.get(..12).expect("an answer has a header");
    assert_eq!(header[..2], bytes[..2], "another id");
    assert_eq!((header[2] & 0x80, header[2] & 0x78), (0x80, bytes[2] & 0x78), "no answer, or to another operation");
    // An answer is never answered, or two servers would go on for ever.
    assert_eq!(hearthgate::dns::read_message(&answer), None);
}

/// A question over HTTPS: method, query and kind of body, a line each. What is taken out of the query is what was
/// written into it, and no longer than a question may be.
pub fn https_question(bytes: &[u8]) {
    let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
    let (Some(method), Some(query), Some(kind)) = (lines.next(), lines.next(), lines.next()) else { return };
    let Ok(query) = std::str::from_utf8(query) else { return };
    let Some(message) = hearthgate::ingress::doh::read_request(method, query, kind) else { return };
    assert!(message.len() <= hearthgate::questions::LONGEST);
    assert_eq!(method, b"GET");
    dns_message(&message);
}

/// What servers say to a resolver, in pieces with two bytes of length in front: flags, counts and records that
/// stand behind the question. None of it breaks the resolver, nor costs more than it may.
pub fn server_answers(mut bytes: &[u8]) {
    use hearthgate::dns::resolver::{
        Asked, Config, Now, Output, Resolver, anchor::Anchors, name::Name, wire::Question,
    };
    let root = Name::parse("a.root").expect("a name");
    let config = Config {
        hints: vec![(root, vec![[192, 0, 2, 1].into()])],
        anchors: Anchors::root(),
        special_servers: true,
        cache_bytes: 64 << 10,
        ..Config::default()
    };
    let most = config.limits.packets;
    let mut random = 0_u8;
    let mut resolver = Resolver::new(config, move |bytes| {
        bytes.fill_with(|| {
            random = random.wrapping_mul(5).wrapping_add(113);
            random
        });
    });
    let mut now = Now { since_start: std::time::Duration::from_secs(1000), wall: 1_700_000_000 };
    let name = Name::parse("www.example.com").expect("a name");
    let question = Question { name, rtype: 1 };
    resolver.ask(Asked { question, checking_disabled: false }, now);
    let mut sent = 0;
    loop {
        while let Some(output) = resolver.next_output() {
            let (exchange, message) = match output {
                Output::Send { exchange, message, .. } => (exchange, message),
                Output::Answer(..) => return,
                Output::Cancel(_) | Output::Explained(..) | Output::SendEncrypted { .. } => continue,
            };
            sent += 1;
            assert!(sent <= most + 8, "more than the budget and the probes of an outage");
            let Some((length, rest)) = bytes.split_first_chunk::<2>() else {
                resolver.handle_failure(exchange, now);
                continue;
            };
            let (piece, rest) = rest.split_at(rest.len().min(usize::from(u16::from_be_bytes(*length))));
            bytes = rest;
            let mut answer = message[..2].to_vec();
            let (header, records) = piece.split_at(piece.len().min(8));
            answer.extend_from_slice(header);
            answer.resize(10, 0);
            answer[2] |= 0x80;
            answer.splice(4..4, [0, 1]);
            let question = message[12..].iter().position(|byte| *byte == 0).expect("a name ends") + 17;
            answer.extend_from_slice(&message[12..question]);
            answer.extend_from_slice(records);
            resolver.handle_message(exchange, &answer, now);
        }
        assert!(resolver.cache_fill().1 <= 64 << 10, "the cache is too large");
        let Some(next) = resolver.next_timeout() else { panic!("a question without an answer") };
        now.since_start = next.max(now.since_start);
        resolver.handle_timeout(now);
    }
}
