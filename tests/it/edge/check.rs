//! What `check` says.

use super::*;

#[test]
fn check_says_what_is_wrong_and_what_is_meant() {
    let house = House::new();
    let good = house.text();
    let file = house.file();
    let check = || Command::new(PROGRAM).args(["check", "--config"]).arg(&file).output().unwrap();

    let meaning = check();
    house.write(&good.replace("domain = \"home.arpa\"", "domian = \"home.arpa\""));
    let wrong = check();

    assert!(meaning.status.success(), "{}", stderr(&meaning));
    let table = stdout(&meaning);
    let row =
        |host: &str| table.lines().find(|line| line.starts_with(host)).unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(row("welcome.home.arpa")[1..4], ["yes", "yes", "yes"], "{table}");
    assert_eq!(row("admin.home.arpa")[1..4], ["-", "-", "yes"], "{table}");
    assert_eq!(wrong.status.code(), Some(78));
    let expected = format!("{}:3:13: node: unknown key \"domian\"\n  hint: did you mean \"domain\"?", file.display());
    assert!(stderr(&wrong).contains(&expected), "{}", stderr(&wrong));
}

#[test]
fn check_and_run_say_the_same_of_files_that_are_not_there() {
    let house = House::new();
    let text = house.text().replace("names = [\"blocked.example\"]", "source = \"ads.hosts\"");
    let certificate = "certificates = [{ hosts = [\"www.example.org\"], cert = \"www.pem\", key = \"www.key\" }]";
    let text = text.replace("[ingress]\n", &format!("[ingress]\n{certificate}\n"));
    house.write(&format!(
        "{text}\n[[route]]\nhost = \"nas.home.arpa\"\naccess = \"lan\"\nto = \"https://192.0.2.1\"\nupstream_tls.ca = \"nas.pem\"\n"
    ));

    let check = house.call(&["check", "--config", house.file().to_str().unwrap()]);
    let run = house.run_command().output().unwrap();

    let file = house.file();
    let line = |part: &str| house.text().lines().position(|line| line.contains(part)).unwrap() + 1;
    for output in [check, run] {
        assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
        for part in ["ads.hosts", "www.pem", "www.key", "nas.pem"] {
            let said = stderr(&output);
            let expected = format!("{}:{}:", file.display(), line(part));
            let found = said.lines().find(|said| said.contains(&format!("\"{part}\" cannot be read: No such file")));
            assert!(found.is_some_and(|found| found.starts_with(&expected)), "{part}: {said}");
        }
    }
}
