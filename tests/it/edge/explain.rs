//! `hearthgate explain`, beside a false Internet.

use super::*;
use crate::recursion::Internet;

impl House {
    /// A house that resolves names of a false Internet from its root.
    pub(super) fn in_internet(internet: &Internet, dns: &str, testing: &str) -> Self {
        let house = Self::new();
        house.write(&format!(
            r#"
            [node]
            domain = "home.arpa"
            grace = "2s"

            [dns]
            listen = ["127.0.0.1:0"]
            {dns}

            [dns.records]
            nas = ["192.168.1.10"]
            alias = {{ cname = "www.leaf.tld." }}

            [dns.testing]
            root_servers = ["127.0.0.2"]
            server_port = {}
            anchors = []
            special_servers = true
            {testing}
            "#,
            internet.port
        ));
        house
    }

    pub(super) fn start_testing(&self) -> Running<'_> {
        let mut command = self.run_command();
        command.arg("--testing");
        self.start_by(command)
    }

    fn explain(&self, arguments: &[&str]) -> Value {
        let output = self.call(&[&["explain", "--json"], arguments].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn kinds(explained: &Value) -> Vec<&str> {
    let steps = explained["course"]["steps"].as_array().unwrap();
    steps.iter().map(|step| step["kind"].as_str().unwrap()).collect()
}

#[test]
fn explain_tells_what_was_asked_of_whom_and_what_it_cost() {
    let internet = Internet::start();
    let house = House::in_internet(&internet, "", "");
    let _running = house.start_testing();

    let cold = house.explain(&["www.leaf.tld"]);
    let text = stdout(&house.call(&["explain", "www.leaf.tld", "--anew"]));
    let warm = house.explain(&["WWW.leaf.tld."]);

    assert_eq!(cold["answered_by"], "resolver");
    assert_eq!(cold["course"]["rcode"], "NOERROR");
    assert_eq!(cold["course"]["security"], "insecure");
    assert_eq!(cold["records"][0], "www.leaf.tld. 60 IN A 198.51.100.7");
    let steps = cold["course"]["steps"].as_array().unwrap();
    let of = |zone: &str| steps.iter().find(|step| step["zone"] == zone).unwrap();
    assert_eq!(of("tld.")["server"], format!("127.0.0.3:{}", internet.port));
    assert_eq!(of("tld.")["came"], "go to leaf.tld. (1 server)");
    assert_eq!(of("leaf.tld.")["came"], "an answer");
    let packets = &cold["course"]["cost"][0];
    assert_eq!((packets["what"].as_str(), packets["limit"].as_u64()), (Some("packets"), Some(200)));
    assert!(packets["used"].as_u64().unwrap() >= 3, "{packets}");
    assert!(text.contains("127.0.0.4") && text.contains("of leaf.tld. for www.leaf.tld. A: an answer"), "{text}");
    assert_eq!(kinds(&warm), ["known"]);
    assert_eq!(internet.asked("www.leaf.tld.").len(), 2, "once, and once anew");
}

#[test]
fn explain_names_who_answers_what_the_resolver_never_sees() {
    let internet = Internet::start();
    let house = House::in_internet(&internet, "", "");
    let _running = house.start_testing();

    let own = house.explain(&["nas.home.arpa"]);
    assert_eq!(
        (&own["answered_by"], &own["records"][0]),
        (&"house".into(), &"nas.home.arpa. 3600 IN A 192.168.1.10".into())
    );
    assert_eq!(house.explain(&["printer.local"])["answered_by"], "special");
    let alias = house.explain(&["alias.home.arpa"]);
    assert_eq!(alias["alias"], "www.leaf.tld.");
    assert_eq!(alias["records"][0], "www.leaf.tld. 60 IN A 198.51.100.7");
    for wrong in [&["a..b"][..], &["www.leaf.tld", "--type", "BANANA"]] {
        let output = house.call(&[&["explain"], wrong].concat());
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("is no "), "{}", stderr(&output));
    }
}

#[test]
fn the_course_of_a_clients_question_is_remembered_where_that_is_wanted() {
    let internet = Internet::start();
    for (traces, remembered) in [("", false), ("traces = 10", true)] {
        let house = House::in_internet(&internet, traces, "");
        let running = house.start_testing();
        let address = running.address("/dns/listen/0");
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let question = crate::dns::query(7, "www.leaf.tld.", hickory_proto::rr::RecordType::A);
        client.send_to(&question.to_vec().unwrap(), address).unwrap();
        client.recv(&mut [0; 1500]).unwrap();

        let explained = house.explain(&["www.leaf.tld"]);

        assert_eq!(kinds(&explained), ["known"]);
        let earlier = explained["earlier"]["steps"].as_array();
        assert_eq!(earlier.is_some_and(|steps| steps.len() >= 3), remembered, "{explained}");
    }
}

#[test]
fn explain_tells_whose_rules_apply_and_where_they_stand() {
    let internet = Internet::start();
    let lists = r#"
            [[dns.list]]
            name = "ads"
            source = "ads.txt"

            [[dns.group]]
            name = "default"

            [[dns.group]]
            name = "kids"
            devices = ["192.168.1.64/26"]
            lists = ["ads"]
            block = ["tld"]
        "#;
    let house = House::in_internet(&internet, lists, "");
    fs::write(house.file().with_file_name("ads.txt"), "# ads\n||leaf.tld^\n").unwrap();
    let _running = house.start_testing();

    let kids = house.explain(&["www.leaf.tld", "--client", "192.168.1.70"]);
    let default = house.explain(&["www.leaf.tld"]);

    assert_eq!((&kids["judged"]["group"], &kids["judged"]["verdict"]), (&"kids".into(), &"blocked by kids".into()));
    let rules: Vec<_> =
        kids["judged"]["rules"].as_array().unwrap().iter().map(|rule| (&rule["line"], &rule["text"])).collect();
    assert_eq!(rules, [(&Value::Null, &"block = \"tld\"".into()), (&2.into(), &"||leaf.tld^".into())]);
    assert_eq!((&default["judged"]["group"], &default["judged"]["verdict"]), (&"default".into(), &"no rule".into()));
    let text = stdout(&house.call(&["explain", "www.leaf.tld", "--client", "192.168.1.70"]));
    assert!(text.contains("ads:2: ||leaf.tld^"), "{text}");
}
