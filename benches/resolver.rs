//! What a question costs that the RRset cache answers.

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use hearthgate::dns::resolver::{
    Asked, Config, Now, Output, Resolver,
    name::Name,
    wire::{Message, Question},
};

/// A root server that has an address for every name, and an alias under each `alias.`.
fn say(message: &[u8]) -> Vec<u8> {
    let asked = Message::parse(message).expect("we write messages");
    let question = asked.question.expect("we ask");
    let mut out = message[..12 + question.name.as_wire().len() + 4].to_vec();
    out[2..12].copy_from_slice(&[0x84, 0, 0, 1, 0, 1, 0, 0, 0, 0]);
    let alias = question.name.labels().next() == Some(b"alias");
    let (kind, data) = if alias {
        (5_u16, question.name.parent().expect("below the root").as_wire().to_vec())
    } else {
        (1, vec![192, 0, 2, 1])
    };
    out.extend([0xc0, 12]);
    out.extend(kind.to_be_bytes());
    out.extend([0, 1, 0, 1, 0x51, 0x80]);
    out.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
    out.extend(data);
    out
}

fn ask(resolver: &mut Resolver, asked: &Asked, now: Now) {
    resolver.ask(asked.clone(), now);
    while let Some(output) = resolver.next_output() {
        match output {
            Output::Send { exchange, message, .. } => resolver.handle_message(exchange, &say(&message), now),
            Output::Answer(_, answer) => {
                black_box(answer);
            }
            Output::Cancel(_) | Output::Explained(..) | Output::SendEncrypted { .. } => {}
        }
    }
}

fn warm(criterion: &mut Criterion) {
    let config = Config {
        hints: vec![(Name::parse("a.root").expect("a name"), vec![[192, 0, 2, 1].into()])],
        priming: false,
        minimise: false,
        special_servers: true,
        ..Config::default()
    };
    let mut random = 1_u64;
    let mut resolver = Resolver::new(config, move |bytes| {
        bytes.fill_with(|| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            random.to_be_bytes()[0]
        });
    });
    let now = Now { since_start: Duration::from_secs(1000), wall: 1_700_000_000 };
    let question = |text: String| Asked {
        question: Question { name: Name::parse(&text).expect("a name"), rtype: 1 },
        checking_disabled: false,
    };
    for (label, prefix) in [("address", ""), ("alias", "alias.")] {
        let questions: Vec<Asked> =
            (0..10_000).map(|number| question(format!("{prefix}www.example{number}.com"))).collect();
        for asked in &questions {
            ask(&mut resolver, asked, now);
        }
        let mut next = questions.iter().cycle();
        criterion.bench_function(&format!("resolver/warm/{label}"), |bencher| {
            bencher.iter(|| ask(&mut resolver, next.next().expect("a cycle"), now));
        });
    }
}

criterion_group!(benches, warm);
criterion_main!(benches);
