//! `/`: is everything all right?

use maud::{Markup, html};

use super::{
    Desk, done, forms,
    parts::{moment, name, share, span, table, text},
};
use crate::console::{
    Refused,
    view::{Count, Moment, Status, Top, Warning},
    words::Words,
};

const DAY: u32 = 86_400;
/// A peer that was heard within this is there.
const PRESENT: i64 = 180;

pub(super) fn page(desk: &Desk<'_>) -> Result<Markup, Refused> {
    let Desk { house, words, zone, .. } = desk;
    let status = house.status();
    let top = if status.history { Some(house.top(DAY)?) } else { None };
    let now = jiff::Timestamp::now().as_second();
    let peers = house.peers();
    let online = peers
        .iter()
        .filter(|peer| peer.last_handshake.and_then(|at| i64::try_from(at).ok()).is_some_and(|at| now - at < PRESENT));
    Ok(html! {
        (warnings(desk, &status))
        h2 { (words.today) }
        dl.tiles {
            @if let Some(top) = &top {
                (tile(words.questions, &top.questions.to_string()))
                (tile(words.blocked, &format!("{} ({})", top.blocked, share(top.blocked, top.questions))))
            }
            (tile(words.online, &format!("{} / {}", online.count(), peers.len())))
            (tile(words.generation, &status.generation.to_string()))
            (tile(words.version, &status.version))
        }
        p.soft { (words.last_change) ": " (moment(status.loaded, zone)) ", " (text(&status.loaded_by)) }
        @match &top {
            Some(top) => (sums(words, top)),
            None => p { (words.no_history) },
        }
        (forms::pause(desk))
        @if !status.timed.is_empty() {
            h2 { (words.ends_itself) }
            (table(words.ends_itself, &html! { th scope="col" { (words.what) } th scope="col" { (words.ends_at) } th.n scope="col" { (words.left) } }, &html! {
                tbody {
                    @for timed in &status.timed {
                        tr {
                            td.wrap lang="en" { (text(&timed.what)) }
                            td.t { (moment(timed.until, zone)) }
                            td.n {
                                @let left = timed.until.saturating_sub(now).max(0);
                                span data-left=(left) { (left) } " s"
                            }
                        }
                    }
                }
            }))
        }
        @if !status.wan.is_empty() {
            h2 { (words.wan) }
            (table(words.wan, &html! {
                th scope="col" { (words.name) } th scope="col" { (words.addresses) } th scope="col" { (words.problem) }
            }, &html! {
                tbody {
                    @for kept in &status.wan {
                        tr {
                            th.wrap scope="row" { (text(&kept.name)) }
                            td.wrap { (text(&kept.addresses.join(", "))) }
                            td.wrap { @if let Some(problem) = &kept.problem { span.bad lang="en" { (text(problem)) } } }
                        }
                    }
                }
            }))
        }
        (parts(words, &status))
    })
}

fn tile(title: &str, value: &str) -> Markup {
    html! { div { dt { (title) } dd { (value) } } }
}

fn warnings(desk: &Desk<'_>, status: &Status) -> Markup {
    let words = desk.words;
    html! {
        @if let Some(waiting) = &status.waiting {
            (done::waits(desk, &waiting.risk, waiting.left))
        }
        @if status.warnings.is_empty() {
            p.note.ok { (words.all_well) }
        } @else {
            h2 { (words.look_after) }
            ul.notes {
                @for warning in &status.warnings {
                    li {
                        (sentence(words, warning))
                        @if !warning.subject.is_empty() { " " strong { (text(&warning.subject)) } }
                        @if !warning.detail.is_empty() { br; small lang="en" { (text(&warning.detail)) } }
                    }
                }
            }
        }
    }
}

fn sentence(words: &Words, warning: &Warning) -> &'static str {
    match warning.kind.as_str() {
        "plane_down" => words.warn_plane_down,
        "certificate_ends" => words.warn_certificate_ends,
        "certificate_problem" => words.warn_certificate_problem,
        "server_down" => words.warn_server_down,
        "list_problem" => words.warn_list_problem,
        "reload_refused" => words.warn_reload_refused,
        "wan_problem" => words.warn_wan_problem,
        "clock_wrong" => words.warn_clock_wrong,
        "history_problem" => words.warn_history_problem,
        "dns_problem" => words.warn_dns_problem,
        "old_endpoint" => words.warn_old_endpoint,
        "new_devices" => words.warn_new_devices,
        _ => words.warn_other,
    }
}

fn sums(words: &Words, top: &Top) -> Markup {
    html! {
        h2 #timeline { (words.timeline) }
        (chart(words, &top.timeline))
        div.columns {
            (counts(words.top_clients, words.device, words, &top.clients, "client"))
            (counts(words.top_names, words.name, words, &top.names, "name"))
            (counts(words.top_blocked, words.name, words, &top.blocked_names, "name"))
        }
    }
}

/// The bars of a day. The same figures stand in the tiles and tables for whoever does not see it.
fn chart(words: &Words, moments: &[Moment]) -> Markup {
    let most = moments.iter().map(|moment| moment.questions).max().unwrap_or_default().max(1);
    let height = |count: u64| count.saturating_mul(100) / most;
    html! {
        svg.chart viewBox={ "0 0 " (moments.len().max(1) * 10) " 100" } preserveAspectRatio="none" role="img"
            aria-labelledby="timeline" {
            @for (at, moment) in moments.iter().enumerate() {
                @let (all, part) = (height(moment.questions), height(moment.blocked));
                rect.all x=(at * 10) width="8" y=(100 - all.min(100)) height=(all) {}
                rect.part x=(at * 10) width="8" y=(100 - part.min(100)) height=(part) {}
            }
        }
        p.soft { (words.timeline_about) }
    }
}

fn counts(title: &str, what: &str, words: &Words, counts: &[Count], parameter: &str) -> Markup {
    html! {
        section {
            h2 { (title) }
            @if counts.is_empty() { p { (words.no_questions) } } @else {
                (table(title, &html! { th scope="col" { (what) } th.n scope="col" { (words.questions) } }, &html! {
                    tbody {
                        @for count in counts {
                            tr {
                                td.wrap {
                                    a href=(super::parts::link("/dns", &[(parameter, Some(&count.what))])) {
                                        (name(&count.what, count.called.as_deref()))
                                    }
                                }
                                td.n { (count.questions) }
                            }
                        }
                    }
                }))
            }
        }
    }
}

fn parts(words: &Words, status: &Status) -> Markup {
    html! {
        h2 { (words.parts) }
        (table(words.parts, &html! {
            th scope="col" { (words.part) } th scope="col" { (words.state) } th scope="col" { (words.since) }
            th.n scope="col" { (words.restarts) } th scope="col" { (words.last_failure) }
        }, &html! {
            tbody {
                @for plane in &status.planes {
                    tr {
                        th scope="row" { (text(&plane.name)) }
                        td { @if plane.running { span.good { (words.running) } } @else { strong.bad { (words.down) } } }
                        td.t { (span(plane.uptime)) }
                        td.n { (plane.restarts) }
                        td.wrap { @if let Some(failure) = &plane.last_failure { span lang="en" { (text(failure)) } } }
                    }
                }
            }
        }))
    }
}
