//! `/dns`: the log of questions, and what they are judged by.

use maud::{Markup, html};

use super::{
    Desk, forms,
    parts::{exact, link, maybe, name, table, text, visible},
};
use crate::console::{
    Refused, api,
    view::{Queries, Query},
    words::Words,
};

const OUTCOMES: [&str; 8] = ["blocked", "cached", "resolved", "local", "special", "stale", "failed", "refused"];

pub(super) fn page(desk: &Desk<'_>) -> Result<Markup, Refused> {
    let Desk { house, words, zone, query, .. } = desk;
    let found = match house.status().history {
        true => Some(house.queries(&api::filter(query)?)?),
        false => None,
    };
    let (lists, devices) = (house.lists(), house.devices());
    Ok(html! {
        h2 { (words.log) }
        @match &found {
            Some(found) => { (filter(desk)) (log(desk, found)) },
            None => p { (words.no_history) },
        }
        h2 { (words.tester) }
        (tester(words, "", "", ""))
        (forms::rule(desk, "", ""))
        (forms::pause(desk))
        h2 { (words.lists) }
        (table(words.lists, &html! {
            th scope="col" { (words.name) } th.n scope="col" { (words.names) } th.n scope="col" { (words.patterns) }
            th.n scope="col" { (words.ignored) } th scope="col" { (words.checked) } th scope="col" { (words.problem) }
        }, &html! {
            tbody {
                @for list in &lists {
                    tr {
                        th.wrap scope="row" { (text(&list.name)) }
                        td.n { (list.names) } td.n { (list.patterns) } td.n { (list.ignored) }
                        td.t { @if list.checked.is_some() { (maybe(list.checked, zone, words)) } }
                        td.wrap { @if let Some(problem) = &list.problem { span.bad lang="en" { (text(problem)) } } }
                    }
                }
            }
        }))
        h2 { (words.devices) }
        @if devices.is_empty() { p { (words.no_devices) } } @else { (table(words.devices, &html! {
            th scope="col" { (words.name) } th scope="col" { "MAC" } th scope="col" { (words.addresses) }
            th scope="col" { (words.group) } th scope="col" { (words.last_seen) }
        }, &html! {
            tbody {
                @for device in &devices {
                    tr {
                        th.wrap scope="row" {
                            a href=(link("/dns", &[("client", Some(&device.mac))])) {
                                (text(device.name.as_deref().unwrap_or(&device.mac)))
                            }
                            @if device.new { " " strong.warn { (words.new) } }
                        }
                        td.t { code { (device.mac) } }
                        td.wrap { (text(&device.addresses.join(", "))) }
                        td.wrap { (text(&device.groups.join(", "))) }
                        td.t { (maybe(Some(device.last_seen), zone, words)) }
                    }
                }
            }
        })) }
    })
}

fn filter(desk: &Desk<'_>) -> Markup {
    let Desk { words, query, .. } = desk;
    let field = |id: &str, title: &str| {
        html! {
            div {
                label for={ "f-" (id) } { (title) }
                input id={ "f-" (id) } name=(id) value=(query.text(id).unwrap_or_default()) maxlength="253" autocapitalize="none" spellcheck="false";
            }
        }
    };
    let chosen = query.text("outcome").unwrap_or_default();
    html! {
        form.row method="get" action="/dns" role="search" aria-label=(words.filter) {
            (field("name", words.name))
            (field("client", words.device))
            div {
                label for="f-outcome" { (words.outcome) }
                select id="f-outcome" name="outcome" {
                    option value="" { (words.any) }
                    @for one in OUTCOMES { option value=(one) selected[one == chosen] { (outcome(words, one)) } }
                }
            }
            (field("list", words.list))
            (field("type", words.rtype))
            div { button { (words.search) } }
        }
        p hidden { label for="live" { input #live type="checkbox"; " " (words.live) } }
    }
}

fn log(desk: &Desk<'_>, found: &Queries) -> Markup {
    let Desk { words, query, .. } = desk;
    let same: Vec<(&str, Option<&str>)> =
        ["name", "client", "outcome", "list", "type"].into_iter().map(|name| (name, query.text(name))).collect();
    let next = found.next.map(|next| next.to_string());
    let older = [&same[..], &[("before", next.as_deref())]].concat();
    html! {
        @if found.cut { p.note { (words.cut) } }
        @if found.queries.is_empty() { p { (words.no_questions) } }
        (table(words.log, &html! {
            th scope="col" { (words.from_time) } th scope="col" { (words.name) } th scope="col" { (words.device) }
            th scope="col" { (words.rtype) } th scope="col" { (words.outcome) } th scope="col" { (words.list) }
            th.n scope="col" { (words.took) } th scope="col" { (words.why) }
            @if desk.may_operate() { th scope="col" { (words.action) } }
        }, &html! { tbody data-live { @for one in &found.queries { (row(desk, one)) } } }))
        nav aria-label=(words.log) {
            @if query.number("before").is_some() { a href=(link("/dns", &same)) { (words.newest) } " " }
            @if found.next.is_some() { a href=(link("/dns", &older)) rel="next" { (words.older) } }
        }
    }
}

fn row(desk: &Desk<'_>, one: &Query) -> Markup {
    let Desk { words, zone, .. } = desk;
    let why = link(
        "/dns/why",
        &[
            ("name", Some(&one.name)),
            ("type", Some(&one.rtype)),
            ("client", Some(one.client.as_str()).filter(|client| !client.is_empty())),
        ],
    );
    let class = match one.outcome.as_str() {
        "blocked" => Some("warn"),
        "failed" | "refused" => Some("bad"),
        _ => None,
    };
    html! {
        tr id={ "q" (one.id) } {
            td.t { (exact(one.at, zone)) }
            th.wrap scope="row" { (name(&one.name, one.unicode.as_deref())) }
            td.wrap { (text(one.device.as_deref().unwrap_or(&one.client))) }
            td { (text(&one.rtype)) }
            td { span class=[class] { (outcome(words, &one.outcome)) } }
            td.wrap { (text(&one.list)) }
            td.n { @if one.took > 0 { (one.took.div_ceil(1000)) " ms" } }
            td { a href=(why) aria-label={ (words.why) ": " (visible(&one.name)) } { (words.why) } }
            @if desk.may_operate() { td { (forms::quick(desk, &one.name, one.outcome == "blocked")) } }
        }
    }
}

/// Says how a question ended.
pub(super) fn outcome<'a>(words: &'a Words, outcome: &'a str) -> &'a str {
    match outcome {
        "blocked" => words.outcome_blocked,
        "cached" => words.outcome_cached,
        "resolved" => words.outcome_resolved,
        "local" => words.outcome_local,
        "special" => words.outcome_special,
        "stale" => words.outcome_stale,
        "failed" => words.outcome_failed,
        "refused" => words.outcome_refused,
        other => other,
    }
}

/// A form that asks what would happen.
pub(super) fn tester(words: &Words, name: &str, rtype: &str, client: &str) -> Markup {
    html! {
        p.soft { (words.tester_about) }
        form.row method="get" action="/dns/why" {
            div {
                label for="t-name" { (words.name) }
                input #t-name name="name" value=(name) required maxlength="253" autocapitalize="none" spellcheck="false";
            }
            div { label for="t-type" { (words.rtype) } input #t-type name="type" value=(rtype) maxlength="16"; }
            div { label for="t-client" { (words.client) } input #t-client name="client" value=(client) maxlength="253"; }
            div { button { (words.test) } }
        }
    }
}
