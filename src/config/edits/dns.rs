//! Rules and pauses in the edits.

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use super::{EditError, Edits};

/// A rule for one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRule {
    /// The name.
    pub name: String,
    /// `allow` or `block`.
    pub action: &'static str,
    /// Its group; nothing is every group.
    pub group: Option<String>,
    /// When it ends; nothing is never.
    pub until: Option<jiff::Timestamp>,
}

/// Who is not filtered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Everybody.
    Everybody,
    /// A group.
    Group(String),
    /// A device, as in `devices` of a group.
    Device(String),
}

impl Edits {
    /// Puts a rule in the place of what was said of the name before, and writes the file. What is over goes.
    pub fn set_rule(&mut self, rule: &NewRule, now: jiff::Timestamp) -> Result<(), EditError> {
        let mut document = self.document()?;
        let rules = entries(&mut document, "rule", now)?;
        rules.retain(|entry| !is_rule(entry, &rule.name, rule.group.as_deref()));
        let mut entry = Table::new();
        entry["names"] = value(&rule.name);
        entry["action"] = value(rule.action);
        if let Some(group) = &rule.group {
            entry["group"] = value(group);
        }
        if let Some(until) = rule.until {
            entry["until"] = value(until.to_string());
        }
        rules.push(entry);
        self.write(document.to_string())
    }

    /// Removes what was said of a name, and writes the file; false if nothing was.
    pub fn remove_rule(&mut self, name: &str, group: Option<&str>, now: jiff::Timestamp) -> Result<bool, EditError> {
        self.remove("rule", now, |entry| is_rule(entry, name, group))
    }

    /// Says whether a rule for this name and group was added.
    pub fn has_rule(&self, name: &str, group: Option<&str>) -> Result<bool, EditError> {
        let mut document = self.document()?;
        let rules = entries(&mut document, "rule", jiff::Timestamp::MIN)?;
        Ok(rules.iter().any(|entry| is_rule(entry, name, group)))
    }

    /// Puts a pause in the place of one for the same before, and writes the file. What is over goes.
    pub fn set_pause(&mut self, whom: &Whom, until: jiff::Timestamp, now: jiff::Timestamp) -> Result<(), EditError> {
        let mut document = self.document()?;
        let pauses = entries(&mut document, "pause", now)?;
        pauses.retain(|entry| !is_pause(entry, whom));
        let mut entry = Table::new();
        match whom {
            Whom::Everybody => {}
            Whom::Group(group) => entry["group"] = value(group),
            Whom::Device(device) => entry["device"] = value(device),
        }
        entry["until"] = value(until.to_string());
        pauses.push(entry);
        self.write(document.to_string())
    }

    /// Removes a pause, and writes the file; false if there was none.
    pub fn end_pause(&mut self, whom: &Whom, now: jiff::Timestamp) -> Result<bool, EditError> {
        self.remove("pause", now, |entry| is_pause(entry, whom))
    }

    fn remove(
        &mut self,
        kind: &'static str,
        now: jiff::Timestamp,
        wanted: impl Fn(&Table) -> bool,
    ) -> Result<bool, EditError> {
        let mut document = self.document()?;
        let tables = entries(&mut document, kind, now)?;
        let before = tables.len();
        tables.retain(|entry| !wanted(entry));
        let removed = tables.len() < before;
        if removed {
            self.write(document.to_string())?;
        }
        Ok(removed)
    }
}

fn is_rule(entry: &Table, name: &str, group: Option<&str>) -> bool {
    let text = |key| entry.get(key).and_then(Item::as_str);
    text("names").is_some_and(|known| known.eq_ignore_ascii_case(name)) && text("group") == group
}

fn is_pause(entry: &Table, whom: &Whom) -> bool {
    let text = |key| entry.get(key).and_then(Item::as_str);
    let (group, device) = match whom {
        Whom::Everybody => (None, None),
        Whom::Group(group) => (Some(group.as_str()), None),
        Whom::Device(device) => (None, Some(device.as_str())),
    };
    (text("group"), text("device")) == (group, device)
}

/// Returns the entries of a kind without those that are over.
fn entries<'a>(
    document: &'a mut DocumentMut,
    kind: &'static str,
    now: jiff::Timestamp,
) -> Result<&'a mut ArrayOfTables, EditError> {
    let dns = document.entry("dns").or_insert_with(|| {
        let mut dns = Table::new();
        dns.set_implicit(true);
        Item::Table(dns)
    });
    let dns = dns.as_table_mut().ok_or_else(|| EditError::Syntax("\"dns\" is no table".into()))?;
    let entries = dns.entry(kind).or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    let entries = entries.as_array_of_tables_mut();
    let entries = entries.ok_or_else(|| EditError::Syntax(format!("\"{kind}\" is no list of entries")))?;
    let is_over = |entry: &Table| {
        let until = entry.get("until").and_then(Item::as_str).and_then(|until| until.parse::<jiff::Timestamp>().ok());
        until.is_some_and(|until| until <= now)
    };
    entries.retain(|entry| !is_over(entry));
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> jiff::Timestamp {
        jiff::Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn a_rule_takes_the_place_of_the_one_before_and_what_is_over_goes() {
        let state = tempfile::tempdir().unwrap();
        let mut edits = Edits::read(state.path()).unwrap();
        let rule = |name: &str, action, until| NewRule { name: name.into(), action, group: None, until };
        edits.set_rule(&rule("old.example", "allow", Some(at(100))), at(50)).unwrap();
        edits.set_rule(&rule("shop.example", "block", None), at(60)).unwrap();

        edits.set_rule(&rule("Shop.example", "allow", Some(at(500))), at(200)).unwrap();

        assert_eq!(
            Edits::read(state.path()).unwrap().text(),
            "[[dns.rule]]\nnames = \"Shop.example\"\naction = \"allow\"\nuntil = \"1970-01-01T00:08:20Z\"\n"
        );
        assert!(edits.has_rule("shop.example", None).unwrap());
        assert!(!edits.has_rule("shop.example", Some("kids")).unwrap());
        assert!(edits.remove_rule("shop.example", None, at(300)).unwrap());
        assert!(!edits.remove_rule("shop.example", None, at(300)).unwrap());
    }

    #[test]
    fn a_pause_is_set_anew_and_ended() {
        let state = tempfile::tempdir().unwrap();
        let mut edits = Edits::read(state.path()).unwrap();
        edits.write("[[vpn.peer]]\nname = \"phone\"\n".into()).unwrap();
        let kids = Whom::Group("kids".into());

        edits.set_pause(&kids, at(100), at(0)).unwrap();
        edits.set_pause(&kids, at(200), at(0)).unwrap();
        edits.set_pause(&Whom::Device("192.168.1.5".into()), at(300), at(0)).unwrap();

        assert_eq!(edits.text().matches("[[dns.pause]]").count(), 2);
        assert!(edits.end_pause(&kids, at(10)).unwrap());
        assert!(!edits.end_pause(&Whom::Everybody, at(10)).unwrap());
        assert!(edits.text().starts_with("[[vpn.peer]]\nname = \"phone\"\n"), "{}", edits.text());
        assert_eq!(edits.peers().unwrap(), ["phone"]);
    }
}
