//! What is said to the owner when a device is kept with the house: who asked for what, what came of it, and how that
//! is lifted. Once a day for each device and case, however often it asks.

use super::{
    answer::Asker,
    filter::{Asking, GroupId, Policy, RuleSource},
    once::Once,
};
use crate::limit::Client;

const DAY: u64 = 86_400;

/// Lines a minute of all devices together: addresses are made up easily.
const A_MINUTE: u32 = 10;

/// For whom which case was told.
#[derive(Debug)]
pub(crate) struct Past {
    told: Once,
    minute: std::sync::Mutex<(u64, u32)>,
}

impl Default for Past {
    fn default() -> Self {
        Self { told: Once::in_seconds(DAY), minute: std::sync::Mutex::default() }
    }
}

impl Past {
    /// Writes a line if it is due for this device and rule.
    #[cold]
    pub(crate) fn tell(
        &self,
        asker: &Asker,
        asking: Asking,
        source: RuleSource,
        policy: &Policy,
        (name, now): (&[u8], u64),
    ) {
        if self.is_due(asker, source, now) {
            let told = Line::of(asking.group(), source, policy, name);
            let Line { group, case, lifted } = &told;
            tracing::info!(client = %asker.client, group, case, "a device was kept with the house: {lifted}");
        }
    }

    fn is_due(&self, asker: &Asker, source: RuleSource, now: u64) -> bool {
        let mut minute = self.minute.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if minute.0 != now / 60 {
            *minute = (now / 60, 0);
        }
        // Who finds the minute full is told of in another one, not tomorrow.
        let is_due = minute.1 < A_MINUTE && self.told.is_due((Client::of(asker.client), asker.name, source), now);
        minute.1 += u32::from(is_due);
        is_due
    }
}

/// What is told.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    group: String,
    case: String,
    lifted: String,
}

impl Line {
    fn of(group: GroupId, source: RuleSource, policy: &Policy, name: &[u8]) -> Self {
        let group = policy.group_name(group).to_owned();
        let case = policy.source_name(source).to_owned();
        // Only names of ours are written down, never what a client made up below them.
        let lifted = match policy.own_entry(source, name) {
            Some(name) => format!(
                "\"{name}\" does not exist for it; `hearthgate allow {name} --group {group}` lifts that, and \
                 keep_clients = false in the group \"{group}\" all of it"
            ),
            None => format!(
                "a name of that list does not exist for it; `allow` of the group \"{group}\" lifts that for a name, and \
                 keep_clients = false all of it"
            ),
        };
        Self { group, case, lifted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dns::{
            Action, BlockAs, Group, List, ListSource, Purpose,
            answer::Step,
            filter::Verdict,
            fuzz::{self, House},
            query::tests::{query, wire},
        },
        origin::{NetworkId, Origin},
    };

    fn house() -> House {
        House::new(|config| {
            config.keep_clients = true;
            config.lists = vec![List {
                name: "doh".into(),
                source: ListSource::Inline(vec!["||resolver.example^".into()]),
                action: Action::Block,
                purpose: Purpose::KeepClients,
                block_as: BlockAs::NxDomain,
                refresh: std::time::Duration::from_secs(60),
                enabled: true,
            }];
            let free = Group { name: "free".into(), keep_clients: false, ..Group::default() };
            let own =
                Group { name: "own".into(), allow: vec!["resolver.example.".parse().unwrap()], ..Group::default() };
            config.groups = vec![Group { name: "default".into(), ..Group::default() }, free, own];
        })
    }

    fn verdict(house: &House, group: &str, name: &str) -> Verdict {
        let filter = &house.policy.filter;
        filter.verdict(filter.group_named(group).unwrap(), &wire(name), 1)
    }

    #[test]
    fn a_list_of_servers_past_the_house_holds_for_every_group_that_is_kept() {
        let house = house();
        let refused = Verdict::Block { answer: BlockAs::NxDomain, source: RuleSource::List(0) };

        assert_eq!(verdict(&house, "default", "dns.resolver.example"), refused);
        assert_eq!(verdict(&house, "router", "dns.resolver.example"), refused);
        assert_eq!(verdict(&house, "free", "dns.resolver.example"), Verdict::Pass);
        assert!(matches!(verdict(&house, "own", "dns.resolver.example"), Verdict::Allow(_)));
    }

    #[test]
    fn each_case_says_what_was_refused_and_how_it_is_lifted() {
        let house = house();
        let line = |name: &str| {
            let Verdict::Block { source, .. } = verdict(&house, "default", name) else { panic!("{name}") };
            Line::of(GroupId::DEFAULT, source, &house.policy.filter, &wire(name))
        };

        let canary = line("use-application-dns.net");
        assert_eq!((canary.group.as_str(), canary.case.as_str()), ("default", "keep_clients: a canary"));
        assert_eq!(
            canary.lifted,
            "\"use-application-dns.net\" does not exist for it; `hearthgate allow use-application-dns.net --group default` \
             lifts that, and keep_clients = false in the group \"default\" all of it"
        );
        let server = line("a1b2c3.dns.nextdns.io");
        assert!(
            server.lifted.contains("allow dns.nextdns.io ") || server.lifted.contains("allow nextdns.io "),
            "{server:?}"
        );
        assert!(!server.lifted.contains("a1b2c3"), "what the client made up is its own");
        assert_eq!(line("dns.resolver.example").case, "doh");
    }

    #[test]
    fn a_device_that_asks_on_is_told_of_once_a_day_and_a_flood_of_them_a_few_times_a_minute() {
        let house = house();
        let bytes = query("use-application-dns.net", 1, None);
        let mut out = Vec::new();
        let asker = fuzz::asker(Origin::Lan(NetworkId::MAIN));
        let past = Past::default();
        let source = RuleSource::Past(0);

        assert!(matches!(house.answer(&asker, &bytes, 1000, &mut out), Step::Blocked(_)));
        assert_eq!(out[3] & 0x0f, 3);
        assert_eq!(
            [1000, 1001, DAY, 1000 + DAY].map(|now| past.is_due(&asker, source, now)),
            [true, false, false, true]
        );
        let other = |last: u8| Asker { client: [192, 0, 2, last].into(), ..asker };
        let told = (0..=255).filter(|last| past.is_due(&other(*last), source, 200_000)).count();
        assert_eq!(told, 10);
        let later = (0..=255).filter(|last| past.is_due(&other(*last), source, 200_060)).count();
        assert_eq!(later, 10, "others have their turn in the next minute");
        assert!(past.is_due(&other(255), source, 200_120), "who was held back was not marked");
    }
}
