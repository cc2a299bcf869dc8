//! `hearthgate explain NAME|URL`: what happens to a question or a request, and why.

use std::{fmt::Write, net::IpAddr, path::PathBuf};

use clap::Args;

use crate::{
    cli::{Running, client, readable},
    dns::explain::{AnsweredBy, Course, Curious, Explained},
    ingress,
};

#[derive(Args, Debug)]
pub(super) struct Explain {
    /// The name that is asked for, or the URL of a page
    name: String,
    /// Of a URL: where the request comes from, "wan", "lan", "lan:NETWORK" or "vpn:PEER"
    #[arg(long, value_name = "ORIGIN", default_value = "wan")]
    from: String,
    /// Of a URL: the method
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// The type of record
    #[arg(long, short, value_name = "TYPE", default_value = "A")]
    r#type: String,
    /// Look it up again, whatever is cached of the name
    #[arg(long)]
    anew: bool,
    /// Whose rules apply, by its address; without it this box's
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// For programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    running: Running,
}

impl Explain {
    pub(super) fn execute(self, state: Option<PathBuf>) -> anyhow::Result<()> {
        let state = self.running.state(state)?;
        if self.name.contains("://") {
            let curious = ingress::explain::Curious { url: self.name, from: self.from, method: self.method };
            let explained: ingress::explain::Explained = client::post(&state, "/api/v1/explain/url", &curious)?;
            match self.json {
                true => println!("{}", serde_json::to_string_pretty(&explained)?),
                false => explained.steps.iter().for_each(|(what, said)| println!("{what:<12} {said}")),
            }
            return Ok(());
        }
        let curious = Curious { name: self.name, rtype: self.r#type, anew: self.anew, client: self.client };
        if self.json {
            // As it came: a newer process may say more than this program knows.
            let explained: serde_json::Value = client::post(&state, "/api/v1/explain", &curious)?;
            println!("{}", serde_json::to_string_pretty(&explained)?);
            return Ok(());
        }
        let explained: Explained = client::post(&state, "/api/v1/explain", &curious)?;
        print!("{}", told(&explained));
        Ok(())
    }
}

/// Writes it for people: what the answer is first, then how it came about.
fn told(explained: &Explained) -> String {
    let mut text = String::new();
    let mut line = |what: &str, said: &str| {
        let _ = writeln!(text, "{what:<12} {said}");
    };
    line("question", &format!("{} {}", explained.name, explained.rtype));
    line(
        "answered by",
        match explained.answered_by {
            AnsweredBy::House => "a record of the house",
            AnsweredBy::Special => "the rule for special names and types",
            AnsweredBy::Resolver => "the resolver",
        },
    );
    if let Some(judged) = &explained.judged {
        line("client", &format!("{} in group \"{}\"", judged.client, judged.group));
        line("rules", &judged.verdict);
        for rule in &judged.rules {
            let number = rule.line.map_or(String::new(), |number| format!(":{number}"));
            line("", &format!("{}{number}: {}", rule.list, rule.text));
        }
        if let Some(cached) = &judged.cached {
            line("cached", cached);
        }
    }
    if let Some(alias) = &explained.alias {
        line("alias", &format!("a record of the house leads to {alias}"));
    }
    if let Some(course) = &explained.course {
        line("answer", &summary(course));
    }
    for record in &explained.records {
        line("", record);
    }
    if let Some(course) = &explained.course {
        course_lines("steps", course, &mut line);
    }
    if let Some(earlier) = &explained.earlier {
        let at = readable(i64::try_from(earlier.at).unwrap_or(i64::MAX));
        line("earlier", &format!("{at}: {}", summary(earlier)));
        course_lines("", earlier, &mut line);
    }
    text
}

fn summary(course: &Course) -> String {
    let why = course.why.as_ref().map_or(String::new(), |why| format!(": {why}"));
    format!("{}, {}{why}", course.rcode, course.security)
}

fn course_lines(title: &str, course: &Course, line: &mut impl FnMut(&str, &str)) {
    for (number, step) in course.steps.iter().enumerate() {
        line(if number == 0 { title } else { "" }, &step.to_string());
    }
    let cost = course.cost.iter().map(|cost| format!("{} of {} {}", cost.used, cost.limit, cost.what));
    line("budget", &cost.collect::<Vec<_>>().join(", "));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::explain::{Cost, Step};

    #[test]
    fn the_answer_comes_first_and_the_budget_last() {
        let course = Course {
            at: 0,
            rcode: "SERVFAIL".into(),
            security: "bogus".into(),
            why: Some("signature expired".into()),
            steps: vec![
                Step::Asked {
                    at_ms: 3,
                    took_ms: 20,
                    zone: "example.".into(),
                    server: "192.0.2.1:53".into(),
                    question: "www.example. A".into(),
                    came: "an answer".into(),
                },
                Step::Trusted { zone: "example.".into(), security: "secure".into(), keys: vec![7], why: None },
            ],
            cost: vec![Cost { what: "packets".into(), used: 2, limit: 200 }],
        };
        let explained = Explained {
            name: "www.example.".into(),
            rtype: "A".into(),
            answered_by: AnsweredBy::Resolver,
            judged: None,
            alias: None,
            course: Some(course),
            earlier: None,
            records: Vec::new(),
        };

        let text = told(&explained);

        let wanted = "\
question     www.example. A
answered by  the resolver
answer       SERVFAIL, bogus: signature expired
steps        asked     192.0.2.1:53 of example. for www.example. A: an answer (at 3 ms, took 20 ms)
             keys      of example.: secure, keys 7
budget       2 of 200 packets
";
        assert_eq!(text, wanted);
    }
}
