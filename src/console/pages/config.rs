//! `/config`: what is in force, how it came about, and what changed.

use maud::{Markup, html};

use super::{
    Desk, done, forms,
    parts::{link, moment, table, text},
};
use crate::console::{
    Refused,
    api::{Parameter, number},
};

pub(super) const PARAMETERS: &[Parameter] = &[
    number("show", i64::MAX, "The text of this generation."),
    number("since", i64::MAX, "What changed since this generation."),
];

pub(super) fn page(desk: &Desk<'_>) -> Result<Markup, Refused> {
    let Desk { house, words, zone, query, .. } = desk;
    let generation = |name| query.number(name).and_then(|number| number.try_into().ok());
    let status = house.status();
    let generations = house.generations()?;
    let shown = house.text(generation("show"))?;
    let since: Option<u64> = generation("since");
    let diff = match since {
        Some(_) => Some(house.diff(since)?),
        None => None,
    };
    Ok(html! {
        @if let Some(waiting) = &status.waiting { (done::waits(desk, &waiting.risk, waiting.left)) }
        p { (words.in_force) ": " strong { (status.generation) } ", " (moment(status.loaded, zone)) ", " (text(&status.loaded_by)) }
        @if let (Some(diff), Some(since)) = (&diff, since) {
            h2 { (words.changed_since) " " (since) }
            @if diff.trim().is_empty() { p { (words.no_difference) } } @else {
                div.scroll tabindex="0" role="region" aria-label=(words.changed_since) {
                    pre { @for line in diff.lines() { (change(line)) } }
                }
            }
        }
        h2 { (words.generations) }
        (table(words.generations, &html! {
            th.n scope="col" { (words.number) } th scope="col" { (words.from_time) } th scope="col" { (words.by) }
            th scope="col" { (words.show) } th scope="col" { (words.compare) }
            @if desk.may_own() { th scope="col" { (words.action) } }
        }, &html! {
            tbody {
                @for one in &generations {
                    @let number = one.number.to_string();
                    tr {
                        th.n scope="row" { (number) }
                        td.t { (moment(one.time, zone)) }
                        td.wrap { (text(&one.author)) }
                        td { a href=(link("/config", &[("show", Some(&number))])) aria-label={ (words.show) " " (number) } { (words.show) } }
                        td { a href=(link("/config", &[("since", Some(&number))])) aria-label={ (words.changed_since) " " (number) } { (words.compare) } }
                        @if desk.may_own() { td { (forms::rollback(desk, one.number)) } }
                    }
                }
            }
        }))
        @for (title, content) in [(words.edits, &shown.edits), (words.file, &shown.file)] {
            h2 { (title) " (" (words.generation) " " (shown.number) ")" }
            div.scroll tabindex="0" role="region" aria-label=(title) {
                pre { @for line in content.lines() { (text(line)) "\n" } }
            }
        }
        p.soft { (words.secrets_hidden) }
    })
}

fn change(line: &str) -> Markup {
    let class = match line.as_bytes().first() {
        Some(b'+') => Some("good"),
        Some(b'-') => Some("bad"),
        _ => None,
    };
    html! { span class=[class] { (text(line)) } "\n" }
}
