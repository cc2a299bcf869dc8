//! The table against a naive twin: maps of strings, asked rule by rule.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
struct Entry {
    name: String,
    reach: Reach,
    exception: bool,
}

/// Names of few labels over few letters, so that they meet.
fn name() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "C", "longer-label", "x_y"]), 2..5)
        .prop_map(|labels| labels.join("."))
}

fn entry() -> impl Strategy<Value = Entry> {
    let reach = prop::sample::select(vec![Reach::Exact, Reach::Below, Reach::Subtree]);
    (name(), reach, prop::bool::weighted(0.2)).prop_map(|(name, reach, exception)| Entry { name, reach, exception })
}

fn lists() -> impl Strategy<Value = Vec<(bool, Vec<Entry>)>> {
    prop::collection::vec((prop::bool::weighted(0.3), prop::collection::vec(entry(), 0..40)), 0..5)
}

fn groups() -> impl Strategy<Value = Vec<(HashSet<usize>, Vec<String>, Vec<String>)>> {
    let own = || prop::collection::vec(name(), 0..4);
    prop::collection::vec((prop::collection::hash_set(0..5_usize, 0..5), own(), own()), 1..4)
}

fn line(entry: &Entry) -> String {
    let mark = if entry.exception { "@@" } else { "" };
    match entry.reach {
        Reach::Exact => format!("{mark}|{}^", entry.name),
        Reach::Below => format!("{mark}||*.{}^", entry.name),
        Reach::Subtree => format!("{mark}||{}^", entry.name),
    }
}

fn covers(entry: &str, reach: Reach, name: &str) -> bool {
    let (entry, name) = (entry.to_lowercase(), name.to_lowercase());
    let below = name.ends_with(&format!(".{entry}"));
    match reach {
        Reach::Exact => name == entry,
        Reach::Below => below,
        Reach::Subtree => below || name == entry,
    }
}

proptest! {
    #[test]
    fn the_table_says_what_a_naive_twin_says(lists in lists(), groups in groups(), asked in prop::collection::vec(name(), 1..60)) {
        let action = |allow| if allow { Action::Allow } else { Action::Block };
        let compiled = lists.iter().enumerate().map(|(place, (allow, entries))| {
            let lines: Vec<String> = entries.iter().map(line).collect();
            list(&place.to_string(), action(*allow), &lines.iter().map(String::as_str).collect::<Vec<_>>())
        });
        let own = |list: &[String]| list.iter().map(|name| Name::from_ascii(format!("{name}.")).unwrap()).collect();
        let written = groups.iter().enumerate().map(|(place, (chosen, allow, block))| Group {
            name: if place == 0 { "default".into() } else { format!("group {place}") },
            lists: chosen.iter().copied().filter(|chosen| *chosen < lists.len()).collect(),
            allow: own(allow),
            block: own(block),
            ..Group::default()
        });
        let (policy, statuses) = Policy::build(&config(compiled.collect(), written.collect()), None).unwrap();

        for ((_, entries), status) in lists.iter().zip(&statuses) {
            let distinct: HashSet<_> = entries.iter().map(|entry| entry.name.to_lowercase()).collect();
            prop_assert_eq!(status.names, distinct.len() as u64);
            prop_assert_eq!(status.names + status.duplicates, entries.len() as u64);
        }
        for (place, (chosen, allow, block)) in groups.iter().enumerate() {
            let id = policy.group_named(&if place == 0 { "default".into() } else { format!("group {place}") }).unwrap();
            for name in &asked {
                let own = |list: &[String]| list.iter().any(|entry| covers(entry, Reach::Subtree, name));
                let listed = |wanted: bool| {
                    let mut sources = Vec::new();
                    for (place, (allow, entries)) in lists.iter().enumerate().filter(|(place, _)| chosen.contains(place)) {
                        for entry in entries {
                            if (*allow || entry.exception) == wanted && covers(&entry.name, entry.reach, name) {
                                sources.push((std::cmp::Reverse(entry.name.len()), place));
                            }
                        }
                    }
                    sources.into_iter().min().map(|(_, place)| RuleSource::List(u16::try_from(place).unwrap()))
                };
                let blocked = |source| Verdict::Block { answer: BlockAs::Null, source };
                let expected = if own(allow) {
                    Verdict::Allow(RuleSource::Group(id))
                } else if own(block) {
                    blocked(RuleSource::Group(id))
                } else if let Some(source) = listed(true) {
                    Verdict::Allow(source)
                } else {
                    listed(false).map_or(Verdict::Pass, blocked)
                };

                let explained = policy.explain(id, &wire(&format!("{name}.")), 1).unwrap();
                prop_assert_eq!(explained.first().map(|first| first.effect), match expected {
                    Verdict::Pass => None,
                    Verdict::Allow(_) => Some(Effect::Allow),
                    Verdict::Block { .. } => Some(Effect::Block),
                    other => panic!("{other:?}"),
                });
                prop_assert_eq!(policy.verdict(id, &wire(&format!("{name}.")), 1), expected, "{} for group {}", name, place);
            }
        }
    }
}
