//! Rules and pauses as commands ask for them: kept in the edits, in force at once, ended by themselves.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    app::control::Refusal,
    config::{
        Compiled,
        edits::{EditError, Edits, NewRule, Whom},
    },
    dns::Action,
};

/// A change of what is blocked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "do")]
pub enum RuleEdit {
    /// A name is let through.
    Allow(RuleFor),
    /// A name is blocked.
    Block(RuleFor),
    /// What was said of a name before is forgotten.
    Undo(RuleFor),
    /// Nothing is blocked for a while.
    Pause(PauseFor),
    /// A pause ends.
    Resume(PauseFor),
}

/// A name and for whom.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RuleFor {
    /// The name, with everything below it.
    pub name: String,
    /// The group; nothing is every group.
    pub group: Option<String>,
    /// Seconds that it holds for; nothing is for good.
    pub seconds: Option<u64>,
}

/// Whom a pause is for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PauseFor {
    /// A group.
    pub group: Option<String>,
    /// Or a device, as in `devices` of a group.
    pub device: Option<String>,
    /// Seconds that it lasts.
    #[serde(default)]
    pub seconds: u64,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruled {
    /// Seconds since 1970 at which it ends.
    pub until: Option<i64>,
}

/// As the command that asks for it.
impl fmt::Display for RuleEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group =
            |group: &Option<String>| group.as_ref().map_or_else(String::new, |group| format!(" --group {group}"));
        match self {
            Self::Allow(rule) => write!(f, "allow {}{}", rule.name, group(&rule.group)),
            Self::Block(rule) => write!(f, "block {}{}", rule.name, group(&rule.group)),
            Self::Undo(rule) => write!(f, "undo {}{}", rule.name, group(&rule.group)),
            Self::Pause(pause) | Self::Resume(pause) => {
                let end = if matches!(self, Self::Resume(_)) { " --end" } else { "" };
                let device = pause.device.as_ref().map_or_else(String::new, |device| format!(" --device {device}"));
                write!(f, "pause{}{device}{end}", group(&pause.group))
            }
        }
    }
}

/// Writes a change into the edits; `config` is what it changes.
pub fn apply(edits: &mut Edits, edit: &RuleEdit, config: &Compiled, now: Timestamp) -> Result<Ruled, Refusal> {
    if config.dns.is_none() {
        return Err(Refusal::asked("the configuration has no [dns]: nothing is blocked here"));
    }
    let end = |seconds: u64| {
        let span = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
        now.checked_add(span).map_err(|_| Refusal::asked("nobody knows what will be then: write a shorter time"))
    };
    let until = match edit {
        RuleEdit::Allow(rule) | RuleEdit::Block(rule) => {
            let action = if matches!(edit, RuleEdit::Allow(_)) { "allow" } else { "block" };
            refuse_named(edits, rule, config)?;
            let until = rule.seconds.map(end).transpose()?;
            let new = NewRule { name: rule.name.clone(), action, group: rule.group.clone(), until };
            edits.set_rule(&new, now).map_err(refusal)?;
            until
        }
        RuleEdit::Undo(rule) => {
            let removed = edits.remove_rule(&rule.name, rule.group.as_deref(), now).map_err(refusal)?;
            if !removed {
                refuse_named(edits, rule, config)?;
                return Err(Refusal::missing(format!("no command said anything about \"{}\"", rule.name)));
            }
            None
        }
        RuleEdit::Pause(pause) => {
            let until = end(pause.seconds)?;
            edits.set_pause(&whom(pause)?, until, now).map_err(refusal)?;
            Some(until)
        }
        RuleEdit::Resume(pause) => {
            if !edits.end_pause(&whom(pause)?, now).map_err(refusal)? {
                return Err(Refusal::missing("there is no such pause"));
            }
            None
        }
    };
    Ok(Ruled { until: until.map(Timestamp::as_second) })
}

/// Refuses what the owner's file says already, this or the opposite.
fn refuse_named(edits: &Edits, rule: &RuleFor, config: &Compiled) -> Result<(), Refusal> {
    let Some(dns) = &config.dns else { return Ok(()) };
    let wanted = rule.name.trim_end_matches('.').to_ascii_lowercase();
    let is_it = |name: &dyn fmt::Display| name.to_string().trim_end_matches('.').eq_ignore_ascii_case(&wanted);
    let of_group = |name: &str| rule.group.as_deref().is_none_or(|group| group == name);
    let refuse = |place: String| {
        Err(Refusal::asked(format!(
            "\"{wanted}\" is named by the configuration file ({place}), which is never rewritten: change it there"
        )))
    };
    for group in dns.groups.iter().filter(|group| of_group(&group.name)) {
        for (key, names) in [("allow", &group.allow), ("block", &group.block)] {
            if names.iter().any(|name| is_it(name)) {
                return refuse(format!("`{key}` of group \"{}\"", group.name));
            }
        }
    }
    for own in dns.rules.iter().filter(|own| is_it(&own.name) && own.group == rule.group) {
        if !edits.has_rule(&wanted, own.group.as_deref()).map_err(refusal)? {
            let action = if own.action == Action::Allow { "allow" } else { "block" };
            return refuse(format!("a [[dns.rule]] that says \"{action}\""));
        }
    }
    Ok(())
}

fn whom(pause: &PauseFor) -> Result<Whom, Refusal> {
    match (&pause.group, &pause.device) {
        (None, None) => Ok(Whom::Everybody),
        (Some(group), None) => Ok(Whom::Group(group.clone())),
        (None, Some(device)) => Ok(Whom::Device(device.clone())),
        (Some(_), Some(_)) => Err(Refusal::asked("a pause is for a group or for a device, not for both")),
    }
}

fn refusal(error: EditError) -> Refusal {
    Refusal::ours(error)
}
