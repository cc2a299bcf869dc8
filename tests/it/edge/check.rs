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
