//! The quick start's page.

use super::Answer;

/// Says that it works and where the visitor came from, in the words of the logs.
pub(in crate::ingress) fn welcome(origin: &str) -> Answer {
    let origin = escaped(origin);
    Answer::html(format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>hearthgate</title>\n\
         <style>body{{font:1.1em/1.5 system-ui,sans-serif;max-width:34em;margin:4em auto;padding:0 1em}}</style>\n\
         <h1>It works</h1>\n<p>This page comes from the hearthgate at the edge of this house.</p>\n\
         <p>You came from: <strong>{origin}</strong></p>\n</html>\n"
    ))
}

/// Returns a text as it stands in a page.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_become_markup() {
        let page = welcome("vpn:<b>");

        assert!(!page.body.windows(3).any(|part| part == b"<b>"));
    }
}
