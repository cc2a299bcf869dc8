//! Addresses that a CrowdSec agent keeps out: its local API's stream of decisions.
//!
//! First all that hold are asked for, then what has come and gone since. What was heard well last stays in force, and after
//! any failure all is asked for again: who misses a change would never hear of it.

use std::{
    collections::HashSet,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::{Request, StatusCode};
use ipnet::IpNet;
use serde::Deserialize;

use crate::{
    https::Client,
    ingress::outcasts::{MOST, Ranges, ranges},
    lookup::Lookup,
    provider::Token,
};

/// Bytes of an answer: the community's list has some 5 MiB.
const LONGEST: usize = 16 << 20;
const LONGEST_REST: Duration = Duration::from_secs(300);

/// Where the agent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrowdSec {
    /// Its local API, `http://127.0.0.1:8080`.
    pub url: String,
    /// The key of a bouncer.
    pub key: Token,
    /// How often it is asked.
    pub every: Duration,
    /// What its server is believed by, instead of the public CAs.
    pub ca: Option<PathBuf>,
}

/// What it has said. It survives a reload.
#[derive(Debug)]
pub(super) struct Decisions {
    pub(super) crowdsec: CrowdSec,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    banned: HashSet<IpNet>,
    ranges: Arc<Ranges>,
    /// All was heard, and every change since.
    is_whole: bool,
    failures: u32,
    problem: Option<String>,
    next: Instant,
}

/// An answer, as far as it is read. Either list may be null.
#[derive(Deserialize)]
struct Answer {
    new: Option<Vec<Decision>>,
    deleted: Option<Vec<Decision>>,
}

#[derive(Deserialize)]
struct Decision {
    #[serde(rename = "type")]
    kind: String,
    scope: String,
    value: String,
}

impl Decision {
    /// Returns whom it keeps out, if it is of that kind.
    fn net(&self) -> Option<IpNet> {
        let is_of = |scope: &str| self.scope.eq_ignore_ascii_case(scope);
        if !self.kind.eq_ignore_ascii_case("ban") || !(is_of("ip") || is_of("range")) {
            return None;
        }
        let net = self.value.parse::<IpNet>().or_else(|_| self.value.parse::<IpAddr>().map(IpNet::from)).ok()?;
        (net.prefix_len() > 0).then(|| net.trunc())
    }
}

impl Decisions {
    pub(super) fn new(crowdsec: CrowdSec) -> Self {
        let state = State {
            banned: HashSet::new(),
            ranges: Arc::default(),
            is_whole: false,
            failures: 0,
            problem: Some("it has not been heard yet".to_owned()),
            next: Instant::now(),
        };
        Self { crowdsec, state: Mutex::new(state) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ranges(&self) -> Arc<Ranges> {
        self.state().ranges.clone()
    }

    /// Returns why what is in force may be old.
    pub(super) fn problem(&self) -> Option<String> {
        self.state().problem.clone()
    }

    /// Returns how long it is until the agent is asked again.
    pub(super) fn rest(&self, now: Instant) -> Duration {
        self.state().next.saturating_duration_since(now)
    }

    /// Asks the agent once; says whether that went well.
    pub(super) async fn ask(self: &Arc<Self>, lookup: &Lookup) -> bool {
        let startup = !self.state().is_whole;
        let answer = self.fetch(lookup, startup).await;
        let this = self.clone();
        // Lists may be long, and this thread has connections.
        let taken = tokio::task::spawn_blocking(move || {
            let taken = answer.and_then(|bytes| this.take(&bytes, startup));
            this.note(taken)
        });
        taken.await.unwrap_or(false)
    }

    async fn fetch(&self, lookup: &Lookup, startup: bool) -> Result<Bytes, String> {
        let CrowdSec { url, key, ca, .. } = &self.crowdsec;
        let client = Client::new(ca.as_deref(), lookup.clone()).map_err(|error| error.to_string())?;
        let url = format!("{}/v1/decisions/stream?startup={startup}&scopes=ip,range", url.trim_end_matches('/'));
        let request = Request::get(url).header("x-api-key", &key.0).header("accept", "application/json");
        let request = request.body(Bytes::new()).map_err(|error| error.to_string())?;
        let response = client.up_to(LONGEST).ask(request).await.map_err(|error| error.to_string())?;
        match response.status() {
            StatusCode::OK => Ok(response.into_body()),
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Err("the agent does not know the key".to_owned()),
            status => Err(format!("the agent answered {}", status.as_u16())),
        }
    }

    /// Takes an answer whole, or not at all.
    fn take(&self, bytes: &[u8], startup: bool) -> Result<(), String> {
        let answer: Answer = serde_json::from_slice(bytes).map_err(|error| format!("no decisions: {error}"))?;
        let mut banned = if startup { HashSet::new() } else { self.state().banned.clone() };
        for gone in answer.deleted.iter().flatten().filter_map(Decision::net) {
            banned.remove(&gone);
        }
        banned.extend(answer.new.iter().flatten().filter_map(Decision::net));
        if banned.len() > MOST {
            return Err(format!("has more than {MOST} networks"));
        }
        let all = Ranges::new(banned.iter().flat_map(|net| ranges(*net)).collect());
        let mut state = self.state();
        (state.banned, state.ranges, state.is_whole) = (banned, Arc::new(all), true);
        Ok(())
    }

    fn note(&self, taken: Result<(), String>) -> bool {
        let every = self.crowdsec.every;
        let mut state = self.state();
        match taken {
            Ok(()) => {
                if state.problem.take().is_some() {
                    tracing::info!(url = self.crowdsec.url, networks = state.banned.len(), "decisions in force");
                }
                state.failures = 0;
                state.next = Instant::now() + every;
                true
            }
            Err(problem) => {
                if state.problem.as_ref() != Some(&problem) {
                    let kept = state.banned.len();
                    tracing::warn!(url = self.crowdsec.url, problem, kept, "decisions stay what they were");
                }
                state.problem = Some(problem);
                state.is_whole = false;
                state.failures = state.failures.saturating_add(1);
                let rest = every.saturating_mul(1 << state.failures.min(8)).min(LONGEST_REST.max(every));
                state.next = Instant::now() + rest;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decisions() -> Decisions {
        let (url, key) = ("http://127.0.0.1:8080".to_owned(), Token("secret".to_owned()));
        Decisions::new(CrowdSec { url, key, every: Duration::from_secs(10), ca: None })
    }

    fn decision(kind: &str, scope: &str, value: &str) -> String {
        format!(
            r#"{{"id":1,"origin":"CAPI","type":"{kind}","scope":"{scope}","value":"{value}","duration":"1h","scenario":"x"}}"#
        )
    }

    fn has(decisions: &Decisions, address: &str) -> bool {
        decisions.ranges().have(address.parse().unwrap())
    }

    #[test]
    fn all_comes_first_and_then_what_changes() {
        let decisions = decisions();
        let all = [
            decision("ban", "Ip", "198.51.100.7"),
            decision("ban", "Range", "203.0.113.0/24"),
            decision("captcha", "Ip", "192.0.2.1"),
            decision("ban", "Country", "DE"),
            decision("ban", "Range", "0.0.0.0/0"),
            decision("ban", "Ip", "2001:db8::1"),
        ]
        .join(",");

        decisions.take(format!(r#"{{"new":[{all}],"deleted":null}}"#).as_bytes(), true).unwrap();
        assert!(has(&decisions, "198.51.100.7") && has(&decisions, "203.0.113.9") && has(&decisions, "2001:db8::1"));
        assert!(!has(&decisions, "192.0.2.1") && !has(&decisions, "8.8.8.8"));
        let change = format!(
            r#"{{"new":[{}],"deleted":[{}]}}"#,
            decision("ban", "ip", "192.0.2.9"),
            decision("ban", "Range", "203.0.113.0/24")
        );
        decisions.take(change.as_bytes(), false).unwrap();

        assert!(has(&decisions, "192.0.2.9") && has(&decisions, "198.51.100.7") && !has(&decisions, "203.0.113.9"));
    }

    #[test]
    fn what_is_no_answer_changes_nothing_and_asks_for_all_again() {
        let decisions = decisions();
        let all = format!(r#"{{"new":[{}]}}"#, decision("ban", "Ip", "198.51.100.7"));
        assert!(decisions.note(decisions.take(all.as_bytes(), true)));
        assert!(decisions.state().is_whole && decisions.problem().is_none());

        for wrong in ["<html>", "[]", r#"{"new":{}}"#, r#"{"new":[{"value":1}]}"#] {
            assert!(!decisions.note(decisions.take(wrong.as_bytes(), false)), "{wrong}");
        }

        assert!(has(&decisions, "198.51.100.7") && decisions.problem().is_some());
        assert!(!decisions.state().is_whole, "a change may have been missed");
        let rest = decisions.rest(Instant::now());
        assert!(rest > Duration::from_secs(100) && rest <= LONGEST_REST, "{rest:?}");
        decisions.take(br#"{"new":null,"deleted":null}"#, true).unwrap();
        assert!(!has(&decisions, "198.51.100.7"), "all that holds is nothing");
    }
}
