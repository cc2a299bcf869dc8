//! What is shown when something was done.

use maud::{Markup, html};
use qrcode::{Color, QrCode};

use super::{
    Desk,
    parts::{moment, text},
};
use crate::console::view::Done;

pub(super) fn page(desk: &Desk<'_>, done: &Done, back: &str) -> Markup {
    let Desk { words, zone, .. } = desk;
    html! {
        div.note.ok role="status" {
            p { strong { (words.done) } }
            @if let Some(until) = done.until { p { (words.holds_until) " " (moment(until, zone)) } }
            p { (words.generation) " " (done.generation) }
        }
        @if let Some(waiting) = &done.waiting { (waits(desk, &waiting.risk, waiting.left)) }
        @if let Some(configuration) = &done.configuration {
            h2 { (words.peer_configuration) }
            p { (words.shown_once) }
            @if done.endpoint_is_guessed { p.warn { (words.endpoint_guessed) } }
            div.columns {
                div.scroll tabindex="0" role="region" aria-label=(words.peer_configuration) { pre { (configuration) } }
                @if let Some(picture) = picture(words.qr, configuration) { (picture) }
            }
        }
        p { a href=(back) { (words.back) } }
    }
}

/// A change that waits, and what is done with it.
pub(super) fn waits(desk: &Desk<'_>, risk: &str, left: u64) -> Markup {
    let words = desk.words;
    html! {
        div.note role="alert" {
            p { strong { (words.waiting) } ": " span lang="en" { (text(risk)) } }
            p { (words.waiting_left) " " span data-left=(left) { (left) } }
            @if desk.may_own() {
                form.inline method="post" action="/do/config" {
                    button name="do" value="confirm" { (words.keep) }
                    button.danger name="do" value="undo" { (words.take_back) }
                }
            }
        }
    }
}

/// Draws a QR code, dark on white whatever the scheme.
fn picture(title: &str, content: &str) -> Option<Markup> {
    let code = QrCode::new(content).ok()?;
    let width = code.width();
    let mut path = String::new();
    for (at, color) in code.to_colors().into_iter().enumerate() {
        if color == Color::Dark {
            // Readers want four modules of quiet around it.
            path.push_str(&format!("M{} {}h1v1h-1z", at % width + 4, at / width + 4));
        }
    }
    let all = width + 8;
    Some(html! {
        svg.qr viewBox={ "0 0 " (all) " " (all) } role="img" aria-label=(title) shape-rendering="crispEdges" {
            path fill="#000" d=(path) {}
        }
    })
}
