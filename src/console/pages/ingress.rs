//! `/ingress`: routes and certificates.

use maud::{Markup, html};

use super::{
    Desk,
    parts::{maybe, table, text},
};
use crate::console::{Refused, view::Route};

pub(super) fn page(desk: &Desk<'_>) -> Result<Markup, Refused> {
    let Desk { house, words, zone, .. } = desk;
    let (routes, certificates) = (house.routes(), house.certificates());
    Ok(html! {
        h2 { (words.routes) }
        @if routes.is_empty() { p { (words.no_ingress) } } @else {
            (table(words.routes, &html! {
                th scope="col" { (words.host) } th scope="col" { (words.access) } th scope="col" { (words.to) }
                th.n scope="col" { (words.requests) } th.n scope="col" { (words.errors) }
                th.n scope="col" { (words.median) } th.n scope="col" { (words.slowest) }
                th scope="col" { (words.certificate) }
            }, &html! { tbody { @for route in &routes { (row(desk, route)) } } }))
        }
        h2 { (words.certificates) }
        (table(words.certificates, &html! {
            th scope="col" { (words.host) } th scope="col" { (words.source) } th scope="col" { (words.ends) }
            th scope="col" { (words.next) } th scope="col" { (words.last_error) }
        }, &html! {
            tbody {
                @for one in &certificates {
                    tr {
                        th.wrap scope="row" { (text(&one.hosts.join(", "))) }
                        td.wrap {
                            (text(&one.source))
                            @if one.stand_in { br; small.warn { (words.stand_in) } }
                        }
                        td.t { (maybe(one.not_after, zone, words)) }
                        td.t { @if one.next.is_some() { (maybe(one.next, zone, words)) } }
                        td.wrap { @if let Some(problem) = &one.problem { span.bad lang="en" { (text(problem)) } } }
                    }
                }
            }
        }))
    })
}

fn row(desk: &Desk<'_>, route: &Route) -> Markup {
    let Desk { words, zone, .. } = desk;
    let path = if route.path == "/" { "" } else { &route.path };
    let answers: u64 = route.requests.iter().sum();
    let within = |span: Option<u64>| html! { @if let Some(span) = span { (span) " ms" } };
    html! {
        tr {
            th.wrap scope="row" { (text(&format!("{}{path}", route.host))) }
            td.wrap { (text(&route.access.join(", "))) }
            td.wrap {
                @for server in &route.to {
                    div {
                        code { (text(&server.address)) }
                        @match server.up {
                            Some(true) => { " " span.good { (words.up) } },
                            Some(false) => { " " strong.bad { (words.down) } },
                            None => {},
                        }
                    }
                }
            }
            td.n { (answers) }
            td.n { (route.requests.get(4).copied().unwrap_or_default()) }
            td.n { (within(route.median)) }
            td.n { (within(route.slowest)) }
            td.t { @if route.certificate_ends.is_some() { (maybe(route.certificate_ends, zone, words)) } }
        }
    }
}
