//! `/audit`: who changed what.

use jiff::Timestamp;
use maud::{Markup, html};

use super::{
    Desk,
    parts::{exact, link, table, text},
};
use crate::console::Refused;

const ENTRIES: usize = 100;

pub(super) fn page(desk: &Desk<'_>) -> Result<Markup, Refused> {
    let Desk { house, words, zone, query, .. } = desk;
    let before = query.number("before").and_then(|before| before.try_into().ok());
    let limit = query.number("limit").and_then(|limit| limit.try_into().ok()).unwrap_or(ENTRIES);
    let audit = house.audit(query.text("text"), before, limit);
    let next = audit.next.map(|next| next.to_string());
    let millis = |at: &str| at.parse::<Timestamp>().map_or(0, Timestamp::as_millisecond);
    Ok(html! {
        @match (&audit.broken, &audit.digest) {
            (Some(broken), _) => div.note role="alert" { p { (words.chain_broken) " " span lang="en" { (text(broken)) } } },
            (None, Some(digest)) => p.note.ok { (words.chain_whole) " " code.wrap { (digest) } },
            (None, None) => {},
        }
        form.row method="get" action="/audit" role="search" aria-label=(words.filter) {
            div {
                label for="f-text" { (words.text) }
                input #f-text name="text" value=(query.text("text").unwrap_or_default()) maxlength="253";
            }
            div { button { (words.search) } }
        }
        @if audit.entries.is_empty() { p { (words.no_entries) } }
        (table(words.entries, &html! {
            th.n scope="col" { (words.number) } th scope="col" { (words.from_time) } th scope="col" { (words.by) }
            th scope="col" { (words.what) } th scope="col" { (words.came_of) }
        }, &html! {
            tbody {
                @for entry in &audit.entries {
                    tr {
                        td.n { (entry.number) }
                        td.t { (exact(millis(&entry.at), zone)) }
                        td.wrap { (text(&entry.by)) }
                        th.wrap scope="row" lang="en" { (text(&entry.what)) }
                        td.wrap lang="en" { (text(&entry.outcome)) }
                    }
                }
            }
        }))
        @if next.is_some() {
            p { a href=(link("/audit", &[("text", query.text("text")), ("before", next.as_deref())])) rel="next" { (words.older) } }
        }
    })
}
