//! `/dns/why`: what happens to a question, and by which rule.

use maud::{Markup, html};

use super::{
    Desk, dns, forms,
    parts::{table, text},
};
use crate::console::{Refused, view::Why};

pub(super) fn page(desk: &Desk<'_>) -> Result<Markup, Refused> {
    let Desk { house, words, query, .. } = desk;
    let (rtype, client) = (query.text("type").unwrap_or("A"), query.text("client"));
    let Some(name) = query.text("name") else { return Ok(dns::tester(words, "", "", "")) };
    let why = house.why(name, rtype, client)?;
    Ok(html! {
        (dns::tester(words, name, rtype, client.unwrap_or_default()))
        (said(desk, &why))
    })
}

fn said(desk: &Desk<'_>, why: &Why) -> Markup {
    let words = desk.words;
    let by = match why.answered_by.as_str() {
        "house" => words.by_house,
        "special" => words.by_special,
        _ => words.by_resolver,
    };
    let line = |title: &str, value: &Option<String>| {
        html! { @if let Some(value) = value { div { dt { (title) } dd lang="en" { (text(value)) } } } }
    };
    html! {
        h2 { (text(&why.name)) " " (text(&why.rtype)) }
        dl.tiles {
            div { dt { (words.answered_by) } dd { (by) } }
            (line(words.group, &why.group))
            (line(words.verdict, &why.verdict))
            (line(words.alias, &why.alias))
            (line(words.answer, &why.rcode))
            (line(words.authenticity, &why.security))
            (line(words.problem, &why.problem))
        }
        (forms::rule(desk, why.name.trim_end_matches('.'), why.group.as_deref().unwrap_or_default()))
        @if !why.rules.is_empty() {
            h2 { (words.rules) }
            (table(words.rules, &html! {
                th scope="col" { (words.list) } th.n scope="col" { (words.line) } th scope="col" { (words.rule) }
                th scope="col" { (words.effect) }
            }, &html! {
                tbody {
                    @for rule in &why.rules {
                        tr {
                            th.wrap scope="row" { (text(&rule.list)) }
                            td.n { @if let Some(line) = rule.line { (line) } }
                            td.wrap { code { (text(&rule.text)) } }
                            td lang="en" { (text(&rule.effect)) }
                        }
                    }
                }
            }))
        }
        @for (title, lines) in [(words.records, &why.records), (words.steps, &why.steps)] {
            @if !lines.is_empty() {
                h2 { (title) }
                div.scroll tabindex="0" role="region" aria-label=(title) {
                    pre lang="en" { @for line in lines { (text(line)) "\n" } }
                }
            }
        }
    }
}
