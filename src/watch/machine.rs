//! Whether one thing is up: what each look at it changes. No clock, no IO.

use serde::{Deserialize, Serialize};

use super::config::Rule;

/// So many turns within [`RESTLESS`] seconds are flapping, until nothing turned for [`CALM`] seconds.
const TURNS: usize = 4;
const RESTLESS: i64 = 30 * 60;
const CALM: i64 = 15 * 60;

/// How a thing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing is known: it was not looked at yet, its parent is down, or our own link is.
    #[default]
    Unknown,
    /// It works.
    Up,
    /// It failed, but not often enough to be believed.
    Suspect,
    /// It does not work.
    Down,
    /// It works again, but not for long enough to be believed.
    Recovering,
}

/// What one look says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It works.
    Good,
    /// It does not.
    Bad,
    /// It does not, but that says nothing of it.
    Excused,
    /// Nothing: we were not awake.
    NoData,
}

/// What is remembered of looks.
#[derive(Clone, Debug, Default)]
pub(super) struct Machine {
    state: State,
    /// Looks in a row that speak against the state.
    row: u32,
    since: Option<i64>,
    /// What was last believed, whatever excuses came since.
    verdict: Option<bool>,
    /// When it last turned, the newest last; at most [`TURNS`].
    turns: Vec<i64>,
    flapping: bool,
}

impl Machine {
    /// Returns the state.
    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Returns since when it is in this state, in seconds since 1970.
    pub(super) fn since(&self) -> Option<i64> {
        self.since
    }

    /// Says whether it turns too often for each turn to be news.
    pub(super) fn is_flapping(&self, now: i64) -> bool {
        self.flapping && self.turns.last().is_some_and(|last| now - last < CALM)
    }

    /// Takes in what a look said at this second.
    pub(super) fn handle(&mut self, seen: Seen, rule: Rule, now: i64) {
        let (state, row) = match (self.state, seen) {
            (_, Seen::NoData) => return,
            (_, Seen::Excused) => (State::Unknown, 0),
            (State::Up | State::Suspect, Seen::Good) => (State::Up, 0),
            (State::Unknown, Seen::Good) if self.verdict != Some(false) => (State::Up, 0),
            (State::Unknown | State::Down | State::Recovering, Seen::Good) => {
                let row = if self.state == State::Recovering { self.row + 1 } else { 1 };
                if row >= rule.successes { (State::Up, 0) } else { (State::Recovering, row) }
            }
            (State::Down | State::Recovering, Seen::Bad) => (State::Down, 0),
            (State::Unknown, Seen::Bad) if self.verdict == Some(false) => (State::Down, 0),
            (State::Unknown | State::Up | State::Suspect, Seen::Bad) => {
                let row = if self.state == State::Suspect { self.row + 1 } else { 1 };
                if row >= rule.failures { (State::Down, 0) } else { (State::Suspect, row) }
            }
        };
        self.row = row;
        if state != self.state {
            self.state = state;
            self.since = Some(now);
        }
        match state {
            State::Up => self.believe(true, now),
            State::Down => self.believe(false, now),
            State::Unknown | State::Suspect | State::Recovering => {}
        }
    }

    fn believe(&mut self, up: bool, now: i64) {
        if self.verdict.replace(up).is_none_or(|before| before == up) {
            return;
        }
        self.flapping = self.is_flapping(now);
        if self.turns.len() == TURNS {
            self.turns.remove(0);
        }
        self.turns.push(now);
        let restless = self.turns.len() == TURNS && self.turns.first().is_some_and(|first| now - first < RESTLESS);
        self.flapping |= restless;
    }
}

/// What a look means for a thing, given what else is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances {
    /// Nothing is news now.
    pub(super) maintenance: bool,
    /// How the thing is that this one hangs on.
    pub(super) parent: Option<State>,
    /// None of the anchors answers, and this is none of them.
    pub(super) cut_off: bool,
}

impl Circumstances {
    /// Says what excuses a failure, if anything does.
    pub(super) fn excuse(&self) -> Option<&'static str> {
        match self.parent {
            _ if self.maintenance => Some("maintenance"),
            Some(State::Suspect | State::Down | State::Unknown) => Some("its parent is not up"),
            _ if self.cut_off => Some("no anchor answers: the link of this box is gone"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULE: Rule = Rule { failures: 3, successes: 2 };

    /// Runs looks, a letter each: Good, Bad, Excused, No data.
    fn states(looks: &str) -> String {
        let mut machine = Machine::default();
        let letter = |state| match state {
            State::Unknown => '?',
            State::Up => 'u',
            State::Suspect => 's',
            State::Down => 'd',
            State::Recovering => 'r',
        };
        let seen = |look| match look {
            'G' => Seen::Good,
            'B' => Seen::Bad,
            'E' => Seen::Excused,
            _ => Seen::NoData,
        };
        let step = |(at, look)| {
            machine.handle(seen(look), RULE, at);
            letter(machine.state())
        };
        (0..).zip(looks.chars()).map(step).collect()
    }

    #[test]
    fn what_looks_say_and_what_is_believed() {
        for (looks, wanted) in [
            ("GBBBGG", "ussdru"),
            ("GBBGBBB", "ussussd"),
            ("BBB", "ssd"),
            ("GBBBGBGG", "ussdrdru"),
            ("GBNBNB", "ussssd"),
            ("NNG", "??u"),
            // What was down stays so over an excuse, and must work as often as ever to be believed.
            ("BBBEBEGG", "ssd?d?ru"),
            ("GEBBB", "u?ssd"),
            ("GEG", "u?u"),
        ] {
            assert_eq!(states(looks), wanted, "{looks}");
        }
    }

    #[test]
    fn four_turns_in_half_an_hour_are_flapping_until_it_is_calm() {
        let rule = Rule { failures: 1, successes: 1 };
        let mut machine = Machine::default();
        machine.handle(Seen::Good, rule, 0);
        for (at, seen) in [(100, Seen::Bad), (200, Seen::Good), (300, Seen::Bad)] {
            machine.handle(seen, rule, at);
            assert!(!machine.is_flapping(at));
        }

        machine.handle(Seen::Good, rule, 400);

        assert!(machine.is_flapping(400 + CALM - 1));
        assert!(!machine.is_flapping(400 + CALM));
        // After the calm one turn is news again.
        machine.handle(Seen::Bad, rule, 400 + RESTLESS);
        assert!(!machine.is_flapping(400 + RESTLESS));
    }

    #[test]
    fn failures_are_excused_by_a_parent_maintenance_or_the_own_link() {
        let fine = Circumstances { maintenance: false, parent: Some(State::Up), cut_off: false };

        assert_eq!(fine.excuse(), None);
        assert_eq!(Circumstances { parent: Some(State::Recovering), ..fine }.excuse(), None);
        for parent in [State::Down, State::Suspect, State::Unknown] {
            assert!(Circumstances { parent: Some(parent), ..fine }.excuse().is_some());
        }
        assert!(Circumstances { cut_off: true, ..fine }.excuse().is_some());
        assert_eq!(Circumstances { maintenance: true, cut_off: true, ..fine }.excuse(), Some("maintenance"));
    }

    proptest! {
        /// Nothing goes down without the whole row of failures, nor up again without the whole row of successes.
        #[test]
        fn turns_need_a_whole_row(looks in "[GBEN]{0,200}") {
            let states: Vec<char> = states(&looks).chars().collect();
            let looks: Vec<char> = looks.chars().collect();
            for at in 1..states.len() {
                let before = |letter: char| looks[..=at].iter().rev().filter(|look| **look != 'N')
                    .take_while(|look| **look == letter).count();
                let turned = states[at] != states[at - 1];
                if turned && states[at] == 'd' && matches!(states[at - 1], 'u' | 's') {
                    prop_assert!(before('B') >= 3, "{looks:?} {states:?}");
                }
                if turned && states[at] == 'u' && matches!(states[at - 1], 'd' | 'r') {
                    prop_assert!(before('G') >= 2, "{looks:?} {states:?}");
                }
            }
        }
    }
}
