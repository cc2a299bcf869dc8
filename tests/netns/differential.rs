//! The same questions to four resolvers: hearthgate beside Unbound, Knot Resolver and PowerDNS Recursor, over
//! one tree of zones that holds every kind of DNSSEC and every common mistake.
//!
//! Each question has three aspects: the code, the AD flag and the set of answers. Where two of the others
//! agree on one and hearthgate does not, [`reasons`] must say why it is right.

mod questions;
mod reasons;
mod resolvers;
mod tree;
mod verdict;

use std::{
    fmt::Write as _,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::world::{World, needs};
use questions::Question;
use resolvers::Resolvers;
use tree::Tree;
use verdict::{Aspect, Verdict};

/// Questions under way at once.
const UNDER_WAY: usize = 24;
/// A resolver that says nothing for so long has no vote.
const PATIENCE: Duration = Duration::from_secs(8);
/// No fewer questions are asked.
const FEWEST: usize = 400;
/// No fewer of them must have been decided by the others' votes.
const FEWEST_DECIDED: usize = 380;

#[test]
fn hearthgate_answers_as_others_do() {
    needs!("nsd", "ldns-signzone", "ldns-keygen", "ldns-key2ds", "nft", "dig", "unbound", "kresd", "pdns_recursor");
    let world = World::new();
    let tree = Tree::start(&world);
    let resolvers = Resolvers::start(&world, &tree);
    let questions = questions::all();
    assert!(questions.len() >= FEWEST, "only {} questions", questions.len());

    let began = Instant::now();
    let verdicts = ask_all(&world, &questions);
    let took = began.elapsed();

    let mut findings = Findings::default();
    for (question, verdicts) in questions.iter().zip(&verdicts) {
        findings.judge(question, verdicts);
    }
    println!("{} questions in {:.1} s: {}", questions.len(), took.as_secs_f32(), findings.summary());
    assert!(findings.unexplained.is_empty(), "{}", findings.unexplained);
    assert!(findings.decided >= FEWEST_DECIDED, "the others agree on {} questions only", findings.decided);
    for reason in reasons::all() {
        assert!(findings.reasons.contains(&reason.why), "no question needs this reason any longer: {}", reason.why);
    }
    drop(resolvers);
}

/// What each resolver said, in the order of [`resolvers::ADDRESSES`]; the first is hearthgate.
type Verdicts = [Option<Verdict>; 4];

fn ask_all(world: &World, questions: &[Question]) -> Vec<Verdicts> {
    let verdicts = Mutex::new(vec![Verdicts::default(); questions.len()]);
    let next = AtomicUsize::new(0);
    world.lan.inside(|| {
        std::thread::scope(|scope| {
            for _ in 0..UNDER_WAY {
                scope.spawn(|| {
                    loop {
                        let turn = next.fetch_add(1, Ordering::Relaxed);
                        let (place, who) = (turn / 4, turn % 4);
                        let Some(question) = questions.get(place) else { return };
                        let verdict = question.ask(resolvers::ADDRESSES[who], PATIENCE);
                        verdicts.lock().expect("nobody panics while holding it")[place][who] = verdict;
                    }
                });
            }
        });
    });
    verdicts.into_inner().expect("nobody panics while holding it")
}

/// What the comparison found.
#[derive(Default)]
struct Findings {
    decided: usize,
    explained: usize,
    reasons: Vec<&'static str>,
    silent: [usize; 4],
    alone: [usize; 4],
    unexplained: String,
}

impl Findings {
    fn judge(&mut self, question: &Question, verdicts: &Verdicts) {
        for (who, verdict) in verdicts.iter().enumerate() {
            self.silent[who] += usize::from(verdict.is_none());
        }
        let [ours, others @ ..] = verdicts;
        let mut wrong = Vec::new();
        let mut undecided = false;
        for aspect in Aspect::ALL {
            let said = |verdict: &Option<Verdict>| verdict.as_ref().map(|verdict| verdict.aspect(aspect));
            let votes: Vec<String> = others.iter().filter_map(said).collect();
            let majority = votes.iter().find(|vote| votes.iter().filter(|other| other == vote).count() >= 2);
            let Some(majority) = majority else {
                undecided = true;
                continue;
            };
            for (who, verdict) in others.iter().enumerate() {
                self.alone[who + 1] += usize::from(said(verdict).is_some_and(|said| said != *majority));
            }
            let ours = said(ours).unwrap_or_else(|| "no answer".to_owned());
            if ours == *majority {
                continue;
            }
            self.alone[0] += 1;
            match reasons::find(question, aspect, &ours) {
                Some(reason) => {
                    self.explained += 1;
                    self.reasons.push(reason.why);
                }
                None => wrong.push(aspect),
            }
        }
        self.decided += usize::from(!undecided);
        if !wrong.is_empty() {
            self.describe(question, verdicts, &wrong);
        }
    }

    fn describe(&mut self, question: &Question, verdicts: &Verdicts, wrong: &[Aspect]) {
        let text = &mut self.unexplained;
        let _ = writeln!(text, "\n{question}: differs in {wrong:?}");
        for (name, verdict) in resolvers::NAMES.iter().zip(verdicts) {
            let _ = match verdict {
                Some(verdict) => writeln!(text, "  {name:<10} {verdict}"),
                None => writeln!(text, "  {name:<10} no answer"),
            };
        }
    }

    fn summary(&self) -> String {
        let counts = |numbers: &[usize; 4]| {
            let pairs = resolvers::NAMES.iter().zip(numbers).map(|(name, number)| format!("{name} {number}"));
            pairs.collect::<Vec<_>>().join(", ")
        };
        format!(
            "{} decided, {} differences explained; against the majority: {}; silent: {}",
            self.decided,
            self.explained,
            counts(&self.alone),
            counts(&self.silent)
        )
    }
}
