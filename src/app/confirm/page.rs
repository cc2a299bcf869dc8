//! The page by which people confirm: a form with one field, without a script.

use super::book::Verdict;
use crate::ingress::escaped;

/// Writes the page; `seal` makes the form one of ours, `said` is what came of an attempt.
pub(super) fn page(peer: &str, seal: &str, said: Option<&Verdict>, readable: impl Fn(i64) -> String) -> String {
    let (class, text) = match said {
        None => ("", String::new()),
        Some(Verdict::Confirmed(until)) => ("ok", format!("Confirmed until {}.", readable(*until))),
        Some(Verdict::Wrong { wait, .. }) => ("no", format!("That was not right. Try again in {}.", span(*wait))),
        Some(Verdict::TooEarly { wait }) => ("no", format!("Too early: try again in {}.", span(*wait))),
        Some(Verdict::NotSetUp) => {
            ("no", format!("This peer is not set up yet. The owner runs: hearthgate peer confirm-setup {peer}"))
        }
    };
    let said = if text.is_empty() { String::new() } else { format!("<p class=\"{class}\">{}</p>\n", escaped(&text)) };
    let form = match class {
        "ok" => "<p>You can go on now; pages that did not load may want to be loaded again.</p>\n".to_owned(),
        _ => {
            format!(
                "<form method=\"post\" action=\"/\">\n<input type=\"hidden\" name=\"seal\" value=\"{seal}\">\n<label for=\"code\">The six digits that your authenticator shows</label>\n\
             <input id=\"code\" name=\"code\" inputmode=\"numeric\" autocomplete=\"one-time-code\" pattern=\"[0-9 ]*\" \
             maxlength=\"8\" required autofocus>\n<button>Confirm</button>\n</form>\n"
            )
        }
    };
    let peer = escaped(peer);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Confirm · hearthgate</title>\n\
         <style>body{{font:1.1em/1.5 system-ui,sans-serif;max-width:26em;margin:3em auto;padding:0 1em;color:#222;background:#fff}}\
         label{{display:block}}input,button{{font:inherit;padding:.4em .6em;margin:.4em .4em 0 0}}input{{width:8em;letter-spacing:.15em}}\
         .no{{color:#a00}}.ok{{color:#060}}\
         @media(prefers-color-scheme:dark){{body{{color:#ddd;background:#181818}}.no{{color:#f88}}.ok{{color:#8d8}}}}</style>\n\
         <h1>Is it you?</h1>\n<p>The peer <strong>{peer}</strong> reaches nothing through this gate before you have confirmed.</p>\n\
         {said}{form}</html>\n"
    )
}

fn span(seconds: i64) -> String {
    match seconds {
        1 => "a second".to_owned(),
        2..120 => format!("{seconds} seconds"),
        _ => format!("{} minutes", (seconds + 59) / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_a_form_without_a_script_until_it_is_confirmed() {
        let text = |said: Option<&Verdict>| page("<b>", "5ea1", said, |_| "tomorrow".into());

        for said in [
            None,
            Some(&Verdict::Wrong { failures: 2, wait: 2 }),
            Some(&Verdict::TooEarly { wait: 900 }),
            Some(&Verdict::NotSetUp),
        ] {
            let page = text(said);
            assert!(page.contains("<form") && !page.contains("<script") && !page.contains("<b>"), "{page}");
        }
        assert!(text(Some(&Verdict::TooEarly { wait: 900 })).contains("15 minutes"));
        let done = text(Some(&Verdict::Confirmed(7)));
        assert!(done.contains("until tomorrow") && !done.contains("<form"), "{done}");
    }
}
