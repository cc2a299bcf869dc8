//! `/vpn`: who may come in, and who is there.

use maud::{Markup, html};

use super::{
    Desk, forms,
    parts::{bytes, maybe, moment, table, text},
};
use crate::console::{Refused, view::Peer};

pub(super) fn page(desk: &Desk<'_>) -> Result<Markup, Refused> {
    let Desk { house, words, .. } = desk;
    let peers = house.peers();
    Ok(html! {
        h2 { (words.peers) }
        @if peers.is_empty() { p { (words.no_peers) } } @else {
            (table(words.peers, &html! {
                th scope="col" { (words.name) } th scope="col" { (words.person) } th scope="col" { (words.handshake) }
                th scope="col" { (words.endpoint) } th.n scope="col" { (words.received) } th.n scope="col" { (words.sent) }
                th scope="col" { (words.addresses) } th scope="col" { (words.enabled) }
                @if desk.may_own() { th scope="col" { (words.action) } }
            }, &html! { tbody { @for peer in &peers { (row(desk, peer)) } } }))
        }
        (forms::add_peer(desk))
    })
}

fn row(desk: &Desk<'_>, peer: &Peer) -> Markup {
    let Desk { words, zone, .. } = desk;
    let role = peer.role.as_deref().map(|role| match role {
        "owner" => words.role_owner,
        "operator" => words.role_operator,
        _ => words.role_viewer,
    });
    html! {
        tr {
            th.wrap scope="row" {
                (text(&peer.name))
                @if let Some(group) = &peer.group { br; small { (words.group) ": " (text(group)) } }
            }
            td.wrap {
                @if let Some(user) = &peer.user { (text(user)) }
                @if let Some(role) = role { br; small { (role) } }
            }
            td.t { (maybe(peer.last_handshake, zone, words)) }
            td.wrap { @if let Some(endpoint) = &peer.endpoint { (text(endpoint)) } }
            td.n { (bytes(peer.received)) }
            td.n { (bytes(peer.sent)) }
            td.wrap { (text(&peer.addresses.join(", "))) }
            td {
                @if peer.enabled { span.good { (words.yes) } } @else { strong.bad { (words.disabled) } }
                @if let Some(expires) = peer.expires { br; small { (words.expires) " " (moment(expires, zone)) } }
                @if peer.must_confirm {
                    br;
                    @match peer.confirmed_until {
                        Some(_) => small { (words.confirmed) " " (maybe(peer.confirmed_until, zone, words)) },
                        None => small.warn { (words.must_confirm) },
                    }
                }
            }
            @if desk.may_own() { td { (forms::peer(desk, peer)) } }
        }
    }
}
