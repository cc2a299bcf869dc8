//! Rules and pauses that end by themselves: what is in force, and what has just ended.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Action, Config, OwnRule, Pause, Paused};

/// Something that ends by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed {
    /// What it is: `allow shop.example for group "kids"`.
    pub what: String,
    /// Seconds since 1970 at which it ends.
    pub until: u64,
}

/// Returns what is in force for a time, the first to end first.
pub(super) fn in_force(config: &Config, now: u64) -> Vec<Timed> {
    let mut timed: Vec<_> = all(config).filter(|timed| timed.until > now).collect();
    timed.sort_by_key(|timed| timed.until);
    timed
}

/// Logs what ended after `before` and until `now`; returns the time until something ends.
pub(super) fn tell_ended(config: &Config, before: u64, now: u64) -> Option<Duration> {
    for ended in all(config).filter(|timed| before < timed.until && timed.until <= now) {
        tracing::info!(what = ended.what, "time is over");
    }
    let next = all(config).map(|timed| timed.until).filter(|until| *until > now).min()?;
    Some(Duration::from_secs(next - now))
}

fn all(config: &Config) -> impl Iterator<Item = Timed> {
    let rules = config.rules.iter().filter_map(|rule| Some(Timed { what: rule_text(rule), until: rule.until? }));
    rules.chain(config.pauses.iter().map(|pause| Timed { what: pause_text(config, pause), until: pause.until }))
}

fn rule_text(rule: &OwnRule) -> String {
    let action = match rule.action {
        Action::Allow => "allow",
        Action::Block => "block",
    };
    let name = rule.name.to_ascii();
    let group = rule.group.as_ref().map_or_else(|| "every group".into(), |group| format!("group \"{group}\""));
    format!("{action} {} for {group}", name.trim_end_matches('.'))
}

fn pause_text(config: &Config, pause: &Pause) -> String {
    match &pause.whom {
        Paused::Everybody => "pause for everybody".into(),
        Paused::Group(group) => format!("pause for group \"{group}\""),
        Paused::Device(device) => format!("pause for {}", device.told(&config.directory)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_force_is_told_until_it_ends() {
        let rule = |until| OwnRule {
            name: "shop.example.".parse().unwrap(),
            action: Action::Allow,
            group: Some("kids".into()),
            until,
        };
        let pause = Pause { whom: Paused::Everybody, until: 150 };
        let config = Config { rules: vec![rule(Some(200)), rule(None)], pauses: vec![pause], ..Config::default() };
        let told = |now| in_force(&config, now).into_iter().map(|timed| timed.what).collect::<Vec<_>>();

        assert_eq!(told(100), ["pause for everybody", "allow shop.example for group \"kids\""]);
        assert_eq!(told(150), ["allow shop.example for group \"kids\""]);
        assert_eq!(told(200), [""; 0]);
        assert_eq!(tell_ended(&config, 100, 120), Some(Duration::from_secs(30)));
        assert_eq!(tell_ended(&config, 150, 300), None);
    }
}
