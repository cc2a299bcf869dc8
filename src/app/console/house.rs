//! The edge as the console sees it.

use std::{collections::VecDeque, net::IpAddr, sync::Arc};

use hickory_proto::rr::RecordType;
use hyper::StatusCode;
use tokio::runtime::Handle;

use super::warnings::warnings;
use crate::{
    app::{Edge, control::Refusal, history, queries::Span},
    audit,
    config::edits::Edits,
    console::{House, Refused, Visitor, action::Action, view},
    dns::explain::{AnsweredBy, Curious},
    history::{Count, Filter},
};

/// Looks of the audit log while it is written find it torn at times.
const LOOKS: usize = 2;

/// The running edge.
pub(super) struct Shown {
    edge: Arc<Edge>,
    runtime: Handle,
}

impl Shown {
    pub(super) fn new(edge: Arc<Edge>, runtime: Handle) -> Self {
        Self { edge, runtime }
    }

    /// Returns what devices are called, by what the history calls them.
    fn names(&self) -> Vec<(String, String)> {
        let (devices, _) = self.edge.planes.dns.as_ref().map(|dns| dns.devices()).unwrap_or_default();
        devices.into_iter().filter_map(|device| Some((device.mac.to_string(), device.name?))).collect()
    }

    /// Returns an address of whom somebody names.
    fn address(&self, client: &str) -> Option<IpAddr> {
        if let Ok(address) = client.parse() {
            return Some(address);
        }
        if let Some(name) = client.strip_prefix("vpn:") {
            let peers = self.edge.peers();
            let peer = peers.iter().find(|peer| peer.name == name)?;
            return peer.addresses.first().map(|net| net.addr());
        }
        let devices = self.devices();
        let is_it = |device: &&view::Device| {
            device.mac.eq_ignore_ascii_case(client)
                || device.name.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(client))
        };
        devices.iter().find(is_it)?.addresses.iter().find_map(|address| address.parse().ok())
    }
}

fn refused(refusal: Refusal) -> Refused {
    let (status, failure) = refusal.into_parts();
    let mut detail = failure.error;
    for problem in failure.problems {
        detail.push('\n');
        detail.push_str(&problem);
    }
    Refused { status, detail }
}

/// Returns a name as people write it, if that is another text.
fn unicode(name: &str) -> Option<String> {
    if !name.contains("xn--") {
        return None;
    }
    let (unicode, result) = idna::domain_to_unicode(name);
    (result.is_ok() && unicode != name).then_some(unicode)
}

fn counts(counts: Vec<Count>, called: impl Fn(&str) -> Option<String>) -> Vec<view::Count> {
    let count = |Count { what, questions }| view::Count { called: called(&what), what, questions };
    counts.into_iter().map(count).collect()
}

impl House for Shown {
    fn zone(&self) -> jiff::tz::TimeZone {
        self.edge.force.load().config.node.timezone.clone()
    }

    fn status(&self) -> view::Status {
        let status = self.edge.status();
        let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default();
        let generations = self.edge.generations().unwrap_or_default();
        let by = generations.into_iter().find(|one| one.number == status.generation).map(|one| one.author);
        let warnings = warnings(&status, &self.routes(), now);
        let plane = |plane: crate::app::status::Plane| view::Plane {
            name: plane.name,
            running: plane.running,
            uptime: plane.uptime,
            restarts: plane.restarts,
            last_failure: plane.last_failure,
        };
        let wan = status.wan.into_iter().flat_map(|wan| {
            let addresses: Vec<String> = wan.addresses.iter().map(ToString::to_string).collect();
            let kept = move |(name, problem)| view::KeptName { name, addresses: addresses.clone(), problem };
            wan.names.into_iter().map(kept)
        });
        let timed = status.dns.into_iter().flat_map(|dns| dns.timed);
        view::Status {
            version: status.version,
            uptime: status.uptime,
            generation: status.generation,
            loaded: status.loaded,
            loaded_by: by.unwrap_or_default(),
            planes: status.planes.into_iter().map(plane).collect(),
            warnings,
            wan: wan.collect(),
            waiting: status.waiting.map(|waiting| view::Waiting {
                risk: waiting.risk,
                left: waiting.left,
                before: waiting.before,
            }),
            timed: timed
                .map(|timed| view::Timed { what: timed.what, until: i64::try_from(timed.until).unwrap_or(i64::MAX) })
                .collect(),
            history: status.history.is_some(),
        }
    }

    fn queries(&self, filter: &Filter) -> Result<view::Queries, Refused> {
        let found = self.edge.queries(filter).map_err(refused)?;
        let names = self.names();
        let query = |entry: crate::history::Entry| view::Query {
            id: entry.id,
            at: entry.at,
            unicode: unicode(&entry.name),
            name: entry.name,
            rtype: RecordType::from(entry.qtype).to_string(),
            device: names.iter().find(|(mac, _)| *mac == entry.client).map(|(_, name)| name.clone()),
            client: entry.client,
            outcome: entry.outcome,
            transport: entry.transport,
            list: entry.rule,
            took: entry.took,
        };
        Ok(view::Queries { queries: found.entries.into_iter().map(query).collect(), next: found.next, cut: found.cut })
    }

    fn top(&self, seconds: u32) -> Result<view::Top, Refused> {
        let summary = self.edge.summary(Span { seconds }).map_err(refused)?;
        let names = self.names();
        let device = |what: &str| names.iter().find(|(mac, _)| mac == what).map(|(_, name)| name.clone());
        let moment = |moment: crate::history::Moment| view::Moment {
            from: moment.from,
            questions: moment.questions,
            blocked: moment.blocked,
        };
        Ok(view::Top {
            questions: summary.questions,
            blocked: summary.blocked,
            outcomes: counts(summary.outcomes, |_| None),
            timeline: summary.timeline.into_iter().map(moment).collect(),
            names: counts(summary.names, unicode),
            blocked_names: counts(summary.blocked_names, unicode),
            clients: counts(summary.clients, device),
        })
    }

    fn why(&self, name: &str, rtype: &str, client: Option<&str>) -> Result<view::Why, Refused> {
        let client = match client {
            None => None,
            Some(client) => Some(self.address(client).ok_or_else(|| Refused {
                status: StatusCode::CONFLICT,
                detail: format!("no device, peer or address \"{client}\" is known at the moment"),
            })?),
        };
        let curious = Curious { name: name.into(), rtype: rtype.into(), anew: false, client };
        let explained = self.runtime.block_on(self.edge.explain(curious)).map_err(refused)?;
        let answered_by = match explained.answered_by {
            AnsweredBy::House => "house",
            AnsweredBy::Special => "special",
            AnsweredBy::Resolver => "resolver",
        };
        let (group, verdict, rules) = match explained.judged {
            Some(judged) => (Some(judged.group), Some(judged.verdict), judged.rules),
            None => (None, None, Vec::new()),
        };
        let rule = |rule: crate::dns::Match| view::RuleLine {
            list: rule.list,
            line: rule.line,
            text: rule.text,
            effect: format!("{:?}", rule.effect).to_lowercase(),
        };
        let course = explained.course;
        Ok(view::Why {
            name: explained.name,
            rtype: explained.rtype,
            answered_by: answered_by.into(),
            group,
            verdict,
            rules: rules.into_iter().map(rule).collect(),
            alias: explained.alias,
            rcode: course.as_ref().map(|course| course.rcode.clone()),
            security: course.as_ref().map(|course| course.security.clone()),
            problem: course.as_ref().and_then(|course| course.why.clone()),
            steps: course.iter().flat_map(|course| &course.steps).map(ToString::to_string).collect(),
            records: explained.records,
        })
    }

    fn lists(&self) -> Vec<view::List> {
        let lists = self.edge.planes.dns.as_ref().map(|dns| dns.status().lists).unwrap_or_default();
        let list = |list: crate::dns::ListStatus| view::List {
            name: list.name,
            names: list.names,
            patterns: list.patterns,
            ignored: list.ignored,
            checked: list.checked,
            problem: list.problem,
        };
        lists.into_iter().map(list).collect()
    }

    fn devices(&self) -> Vec<view::Device> {
        let (devices, _) = self.edge.planes.dns.as_ref().map(|dns| dns.devices()).unwrap_or_default();
        let device = |device: crate::dns::KnownDevice| view::Device {
            mac: device.mac.to_string(),
            name: device.name,
            addresses: device.addresses.iter().map(ToString::to_string).collect(),
            groups: device.groups,
            new: device.new,
            last_seen: device.last_seen,
        };
        devices.into_iter().map(device).collect()
    }

    fn routes(&self) -> Vec<view::Route> {
        let routes = self.edge.planes.ingress.as_ref().map(|ingress| ingress.overview()).unwrap_or_default();
        let route = |route: crate::ingress::Overview| view::Route {
            name: route.name,
            host: route.host,
            path: route.path,
            access: route.access,
            to: route.to.into_iter().map(|(address, up)| view::Server { address, up }).collect(),
            requests: route.classes.to_vec(),
            under_way: route.under_way,
            median: route.quantiles[0],
            slowest: route.quantiles[1],
            certificate_ends: route.certificate_ends,
        };
        routes.into_iter().map(route).collect()
    }

    fn certificates(&self) -> Vec<view::Certificate> {
        let status = self.edge.planes.ingress.as_ref().map(|ingress| ingress.status().certificates);
        let certificate = |one: crate::ingress::CertificateStatus| view::Certificate {
            hosts: one.hosts,
            source: one.source,
            not_after: one.not_after,
            stand_in: one.stand_in,
            next: one.next,
            problem: one.problem,
        };
        status.unwrap_or_default().into_iter().map(certificate).collect()
    }

    fn peers(&self) -> Vec<view::Peer> {
        let edits = Edits::look(&self.edge.state).ok().and_then(|edits| edits.peers().ok()).unwrap_or_default();
        let peer = |peer: crate::app::peers::Listed| view::Peer {
            is_edit: edits.contains(&peer.name),
            name: peer.name,
            group: peer.group,
            public_key: peer.public_key,
            addresses: peer.addresses.iter().map(ToString::to_string).collect(),
            user: peer.user,
            role: peer.role.map(|role| role.to_string()),
            enabled: peer.enabled,
            expires: peer.expires,
            must_confirm: peer.must_confirm,
            confirmed_until: peer.confirmed_until,
            last_handshake: peer.last_handshake,
            endpoint: peer.endpoint.map(|endpoint| endpoint.to_string()),
            received: peer.received,
            sent: peer.sent,
        };
        self.edge.peers().into_iter().map(peer).collect()
    }

    fn audit(&self, text: Option<&str>, before: Option<u64>, limit: usize) -> view::Audit {
        let text = text.map(str::to_lowercase);
        let limit = limit.max(1);
        let mut audit = view::Audit::default();
        for _ in 0..LOOKS {
            let mut last: VecDeque<view::AuditEntry> = VecDeque::new();
            let (mut kept, mut more) = (0, false);
            let verified = audit::verify(&self.edge.state, |entry| {
                kept += 1;
                let has = |text: &String| {
                    [&entry.by, &entry.what, &entry.outcome].iter().any(|part| part.to_lowercase().contains(text))
                };
                if before.is_some_and(|before| entry.number >= before) || !text.as_ref().is_none_or(has) {
                    return;
                }
                if last.len() == limit {
                    last.pop_front();
                    more = true;
                }
                last.push_back(view::AuditEntry {
                    number: entry.number,
                    at: entry.at.clone(),
                    by: entry.by.clone(),
                    what: entry.what.clone(),
                    outcome: entry.outcome.clone(),
                });
            });
            let next = last.front().filter(|_| more).map(|entry| entry.number);
            audit = view::Audit { entries: last.into_iter().rev().collect(), next, kept, digest: None, broken: None };
            match verified {
                Ok(verified) => {
                    audit.digest = Some(verified.digest);
                    break;
                }
                Err(broken) => audit.broken = Some(broken.to_string()),
            }
        }
        audit
    }

    fn generations(&self) -> Result<Vec<view::Generation>, Refused> {
        let generation = |entry: history::Entry| view::Generation {
            number: entry.number,
            time: entry.time,
            author: entry.author,
            digest: entry.digest,
        };
        Ok(self.edge.generations().map_err(refused)?.into_iter().rev().map(generation).collect())
    }

    fn text(&self, generation: Option<u64>) -> Result<view::ConfigText, Refused> {
        let history::Text { number, file, edits } = self.edge.show(generation).map_err(refused)?;
        Ok(view::ConfigText { number, file, edits })
    }

    fn groups(&self) -> Vec<String> {
        let force = self.edge.force.load();
        force.config.dns.iter().flat_map(|dns| &dns.groups).map(|group| group.name.clone()).collect()
    }

    fn edits(&self) -> crate::console::Edits {
        self.edge.force.load().config.console.as_ref().map(|console| console.edits).unwrap_or_default()
    }

    fn act(&self, action: Action, visitor: &Visitor) -> Result<view::Done, Refused> {
        super::act::act(&self.edge, action, visitor).map_err(refused)
    }

    fn diff(&self, generation: Option<u64>) -> Result<String, Refused> {
        self.edge.diff(generation).map_err(refused)
    }
}
