//! What can be done here, who may do it, and how it is said: by a form of a page or by JSON.

use serde_json::{Value, json};

use super::{
    Edits, Refused,
    api::{Parameter, Query, number, text},
};
use crate::origin::Role;

/// Something that is done through the same edits as commands do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A name is let through.
    Allow(Rule),
    /// A name is blocked.
    Block(Rule),
    /// What was said of a name before is forgotten.
    Forget(Rule),
    /// Nothing is blocked for so many seconds.
    Pause(Whom, u64),
    /// A pause ends.
    Resume(Whom),
    /// One peer more, with a key pair that is made for it.
    AddPeer {
        /// What it is called.
        name: String,
        /// Its group.
        group: Option<String>,
        /// Its last day, as in the configuration.
        expires: Option<String>,
    },
    /// Other keys for a peer.
    RotatePeer(String),
    /// It may come in.
    EnablePeer(String),
    /// It may not.
    DisablePeer(String),
    /// One less.
    RemovePeer(String),
    /// The edits become what they were in this generation.
    Rollback(u64),
    /// A change that waits is kept.
    Confirm,
    /// It is taken back.
    TakeBack,
}

/// A name, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The name, with everything below it.
    pub name: String,
    /// The group; nothing is every group.
    pub group: Option<String>,
    /// Seconds that it holds for; nothing is for good.
    pub seconds: Option<u64>,
}

/// Who is not filtered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whom {
    /// A group.
    pub group: Option<String>,
    /// Or a device.
    pub device: Option<String>,
}

impl Action {
    /// Returns the least role that may do it.
    pub fn needs(&self) -> Role {
        match self {
            Self::Allow(rule) | Self::Block(rule) if rule.seconds.is_some() => Role::Operator,
            Self::Pause(..) | Self::Resume(_) => Role::Operator,
            _ => Role::Owner,
        }
    }

    /// Says whether somebody may do it, as far as the console may change things at all.
    pub(super) fn permitted(&self, role: Role, edits: Edits) -> Result<(), Refused> {
        let needs = self.needs();
        let reaches = match edits {
            Edits::All => true,
            Edits::Runtime => needs <= Role::Operator,
            Edits::None => false,
        };
        if !reaches {
            return Err(Refused::forbidden("the configuration does not let the console do this (`console.edits`)"));
        }
        if role < needs {
            return Err(Refused::forbidden(format!("this takes the role \"{needs}\", and yours is \"{role}\"")));
        }
        Ok(())
    }
}

/// A group of actions, under one path.
pub(super) struct Deed {
    /// Below `/do/` for forms, and below the root of the API.
    pub(super) path: &'static str,
    pub(super) about: &'static str,
    pub(super) fields: &'static [Parameter],
    pub(super) read: fn(&Query) -> Result<Action, Refused>,
}

pub(super) static DEEDS: [Deed; 4] = [
    Deed {
        path: "dns/rule",
        about: "Lets a name through or blocks it, with everything below it. For a time it takes an operator, else an owner.",
        fields: &[
            text("do", "`allow`, `block`, or `forget` what was said before."),
            text("name", "The name."),
            text("group", "For this group; left out, for all."),
            number("seconds", MOST, "For so long; left out, for good."),
        ],
        read: rule,
    },
    Deed {
        path: "dns/pause",
        about: "Blocks nothing for a while. It takes an operator.",
        fields: &[
            text("do", "`pause`, or `resume` before its time."),
            text("group", "For this group."),
            text("device", "For this device, as `devices` of a group name it; with neither, for everybody."),
            number("seconds", MOST, "For so long."),
        ],
        read: pause,
    },
    Deed {
        path: "peer",
        about: "Changes a peer that was added by a command or here. It takes an owner.",
        fields: &[
            text("do", "`add`, `rotate`, `enable`, `disable` or `remove`."),
            text("name", "What it is called."),
            text("group", "Its group, where it is added."),
            text("expires", "Its last day, as 2027-01-31, where it is added."),
        ],
        read: peer,
    },
    Deed {
        path: "config",
        about: "Keeps or takes back a change that waits, or makes the edits what they were. It takes an owner.",
        fields: &[
            text("do", "`confirm`, `undo` or `rollback`."),
            number("generation", i64::MAX, "The generation to roll back to."),
        ],
        read: config,
    },
];

/// A year, in seconds.
const MOST: i64 = 366 * 86_400;

fn said(query: &Query, field: &str) -> Result<String, Refused> {
    query.text(field).map(str::to_owned).ok_or_else(|| Refused::wrong(format!("`{field}` is missing")))
}

fn unknown(query: &Query) -> Refused {
    Refused::wrong(match query.text("do") {
        Some(word) => format!("`do` cannot be \"{word}\""),
        None => "`do` is missing".to_owned(),
    })
}

fn seconds(query: &Query) -> Option<u64> {
    query.number("seconds").and_then(|seconds| seconds.try_into().ok())
}

fn rule(query: &Query) -> Result<Action, Refused> {
    let make: fn(Rule) -> Action = match query.text("do") {
        Some("allow") => Action::Allow,
        Some("block") => Action::Block,
        Some("forget") => Action::Forget,
        _ => return Err(unknown(query)),
    };
    let group = query.text("group").map(str::to_owned);
    Ok(make(Rule { name: said(query, "name")?, group, seconds: seconds(query) }))
}

fn pause(query: &Query) -> Result<Action, Refused> {
    let text = |field| query.text(field).map(str::to_owned);
    let whom = Whom { group: text("group"), device: text("device") };
    match query.text("do") {
        Some("pause") => match seconds(query) {
            Some(seconds @ 1..) => Ok(Action::Pause(whom, seconds)),
            _ => Err(Refused::wrong("`seconds` is missing: for how long?")),
        },
        Some("resume") => Ok(Action::Resume(whom)),
        _ => Err(unknown(query)),
    }
}

fn peer(query: &Query) -> Result<Action, Refused> {
    let name = said(query, "name")?;
    let text = |field| query.text(field).map(str::to_owned);
    Ok(match query.text("do") {
        Some("add") => Action::AddPeer { name, group: text("group"), expires: text("expires") },
        Some("rotate") => Action::RotatePeer(name),
        Some("enable") => Action::EnablePeer(name),
        Some("disable") => Action::DisablePeer(name),
        Some("remove") => Action::RemovePeer(name),
        _ => return Err(unknown(query)),
    })
}

fn config(query: &Query) -> Result<Action, Refused> {
    match (query.text("do"), query.number("generation")) {
        (Some("confirm"), _) => Ok(Action::Confirm),
        (Some("undo"), _) => Ok(Action::TakeBack),
        (Some("rollback"), Some(generation)) => {
            generation.try_into().map(Action::Rollback).map_err(|_| Refused::wrong("which generation?"))
        }
        (Some("rollback"), None) => Err(Refused::wrong("`generation` is missing: which one?")),
        _ => Err(unknown(query)),
    }
}

/// Describes the body of a deed.
pub(super) fn schema(deed: &Deed) -> Value {
    let fields = deed.fields.iter().map(|field| (field.name.to_owned(), field.schema()));
    json!({
        "type": "object",
        "properties": fields.collect::<serde_json::Map<_, _>>(),
        "required": ["do"],
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_by_itself_takes_an_operator_and_the_rest_an_owner() {
        let rule = |seconds| Action::Allow(Rule { name: "a".into(), group: None, seconds });
        let timed = [rule(Some(60)), Action::Pause(Whom::default(), 60), Action::Resume(Whom::default())];
        let lasting = [rule(None), Action::RemovePeer("a".into()), Action::Rollback(1), Action::Confirm];

        for action in &timed {
            assert!(action.permitted(Role::Viewer, Edits::All).is_err(), "{action:?}");
            assert!(action.permitted(Role::Operator, Edits::All).is_ok(), "{action:?}");
            assert!(action.permitted(Role::Operator, Edits::Runtime).is_ok(), "{action:?}");
            assert!(action.permitted(Role::Owner, Edits::None).is_err(), "{action:?}");
        }
        for action in &lasting {
            assert!(action.permitted(Role::Operator, Edits::All).is_err(), "{action:?}");
            assert!(action.permitted(Role::Owner, Edits::All).is_ok(), "{action:?}");
            assert!(action.permitted(Role::Owner, Edits::Runtime).is_err(), "{action:?}");
        }
    }
}
