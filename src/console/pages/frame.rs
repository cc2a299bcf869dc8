//! What stands around every page.

use maud::{DOCTYPE, Markup, html};

use super::{PAGES, parts::text};
use crate::{
    console::{
        Refused, Visitor,
        assets::{ICON, SCRIPT, STYLE},
        words::{ENGLISH, GERMAN, Words},
    },
    origin::Role,
};

/// Puts a page into its frame.
pub(super) fn frame(words: &Words, visitor: &Visitor, path: &str, title: &str, content: &Markup) -> Markup {
    let section = format!("/{}", path.split('/').nth(1).unwrap_or_default());
    let role = match visitor.role {
        Role::Viewer => words.role_viewer,
        Role::Operator => words.role_operator,
        Role::Owner => words.role_owner,
    };
    html! {
        (DOCTYPE)
        html lang=(words.tag) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · " (words.console) }
                link rel="icon" type="image/svg+xml" href=(ICON.path);
                link rel="stylesheet" href=(STYLE.path);
                script src=(SCRIPT.path) defer {}
            }
            body {
                a.skip href="#content" { (words.skip) }
                header {
                    strong { "hearthgate" }
                    nav aria-label=(words.sections) {
                        ul {
                            @for page in PAGES.iter().filter(|page| page.listed) {
                                li {
                                    a href=(page.path) aria-current=[(page.path == section).then_some("page")] {
                                        ((page.title)(words))
                                    }
                                }
                            }
                        }
                    }
                }
                main #content tabindex="-1" {
                    h1 { (title) }
                    (content)
                }
                footer {
                    span { (words.you_are) " " (text(&visitor.name)) ", " (role) }
                    nav aria-label=(words.language) {
                        @for other in [&ENGLISH, &GERMAN] {
                            a href={ "/language/" (other.tag) "?back=" (path) } lang=(other.tag) hreflang=(other.tag) {
                                @if other.tag == "en" { (words.english) } @else { (words.german) }
                            }
                            " "
                        }
                    }
                }
            }
        }
    }
}

/// Says what did not work.
pub(super) fn refused(words: &Words, refused: &Refused) -> Markup {
    html! {
        div.note role="alert" {
            p { strong { (words.error) } }
            @for line in refused.detail.lines() { p lang="en" { (text(line)) } }
        }
    }
}

/// The same, with the way back to where the form is.
pub(super) fn not_done(words: &Words, refused: &Refused, back: &str) -> Markup {
    html! {
        (self::refused(words, refused))
        p { a href=(back) { (words.back) } }
    }
}
