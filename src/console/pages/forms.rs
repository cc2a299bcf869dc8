//! The forms by which something is done. Whoever may not do it does not see them.

use maud::{Markup, html};

use super::{Desk, parts::visible};
use crate::console::view::Peer;

const HOUR: u32 = 3600;

/// Lets a name through for an hour that was blocked, or blocks it that was not: for everybody.
pub(super) fn quick(desk: &Desk<'_>, name: &str, is_blocked: bool) -> Markup {
    let words = desk.words;
    let (word, title) = match is_blocked {
        true => ("allow", words.allow_hour),
        false => ("block", words.block_hour),
    };
    html! {
        @if desk.may_operate() && can_be_sent(name) {
            form.inline method="post" action="/do/dns/rule" {
                input type="hidden" name="name" value=(name);
                input type="hidden" name="seconds" value=(HOUR);
                button name="do" value=(word) { (title) }
            }
        }
    }
}

/// What cannot be seen is not sent either.
fn can_be_sent(name: &str) -> bool {
    !name.is_empty() && visible(name) == name
}

/// Lets a name through or blocks it, for whom and how long one likes.
pub(super) fn rule(desk: &Desk<'_>, name: &str, group: &str) -> Markup {
    let words = desk.words;
    html! {
        @if desk.may_operate() {
            h2 { (words.rule_title) }
            form.row method="post" action="/do/dns/rule" {
                div {
                    label for="r-name" { (words.name) }
                    input #r-name name="name" value=(name) required maxlength="253" autocapitalize="none" spellcheck="false";
                }
                div { label for="r-group" { (words.for_whom) } (groups(desk, "r-group", group)) }
                div {
                    label for="r-seconds" { (words.how_long) }
                    select #r-seconds name="seconds" {
                        (times(desk))
                        @if desk.may_own() { option value="" { (words.for_good) } }
                    }
                }
                div {
                    button name="do" value="allow" { (words.allow) } " "
                    button name="do" value="block" { (words.block) } " "
                    @if desk.may_own() { button name="do" value="forget" { (words.forget) } }
                }
            }
        }
    }
}

/// Blocks nothing for a while.
pub(super) fn pause(desk: &Desk<'_>) -> Markup {
    let words = desk.words;
    html! {
        @if desk.may_operate() {
            h2 { (words.pause_title) }
            form.row method="post" action="/do/dns/pause" {
                div { label for="p-group" { (words.group) } (groups(desk, "p-group", "")) }
                div { label for="p-device" { (words.or_device) } input #p-device name="device" maxlength="253"; }
                div {
                    label for="p-seconds" { (words.how_long) }
                    select #p-seconds name="seconds" { (times(desk)) }
                }
                div {
                    button name="do" value="pause" { (words.pause) } " "
                    button name="do" value="resume" { (words.resume) }
                }
            }
        }
    }
}

fn groups(desk: &Desk<'_>, id: &str, chosen: &str) -> Markup {
    html! {
        select id=(id) name="group" {
            option value="" { (desk.words.everybody) }
            @for group in desk.house.groups().into_iter().filter(|group| can_be_sent(group)) { option value=(group) selected[group == chosen] { (visible(&group)) } }
        }
    }
}

fn times(desk: &Desk<'_>) -> Markup {
    let words = desk.words;
    let times = [(300, words.minutes_5), (1800, words.minutes_30), (HOUR, words.hour), (86_400, words.day)];
    html! { @for (seconds, title) in times { option value=(seconds) selected[seconds == HOUR] { (title) } } }
}

/// Adds a peer.
pub(super) fn add_peer(desk: &Desk<'_>) -> Markup {
    let words = desk.words;
    html! {
        @if desk.may_own() {
            h2 { (words.add_peer) }
            p.soft { (words.add_peer_about) }
            form.row method="post" action="/do/peer" {
                div {
                    label for="a-name" { (words.name) }
                    input #a-name name="name" required maxlength="63" autocapitalize="none" spellcheck="false";
                }
                div { label for="a-group" { (words.group) } input #a-group name="group" maxlength="63"; }
                div { label for="a-expires" { (words.last_day) } input #a-expires name="expires" type="date"; }
                div { button name="do" value="add" { (words.add) } }
            }
        }
    }
}

/// What can be done with a peer that was not written by the owner's hand.
pub(super) fn peer(desk: &Desk<'_>, peer: &Peer) -> Markup {
    let words = desk.words;
    html! {
        @if desk.may_own() && peer.is_edit && can_be_sent(&peer.name) {
            details {
                summary { (words.change) }
                form.inline method="post" action="/do/peer" {
                    input type="hidden" name="name" value=(peer.name);
                    @if peer.enabled { button name="do" value="disable" { (words.disable) } }
                    @else { button name="do" value="enable" { (words.enable) } }
                    button name="do" value="rotate" { (words.rotate) }
                    button.danger name="do" value="remove" { (words.remove) }
                }
            }
        }
    }
}

/// Goes back to a generation.
pub(super) fn rollback(desk: &Desk<'_>, generation: u64) -> Markup {
    html! {
        @if desk.may_own() {
            details {
                summary { (desk.words.rollback) }
                form.inline method="post" action="/do/config" {
                    input type="hidden" name="generation" value=(generation);
                    button.danger name="do" value="rollback" { (desk.words.rollback_edits) }
                }
            }
        }
    }
}
