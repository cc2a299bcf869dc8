//! Commands that cannot do what they are asked.

use super::*;

#[test]
fn arguments_that_cannot_be_understood_are_usage() {
    for arguments in [&["frobnicate"][..], &["run", "--confg", "x"], &["config", "rollback"]] {
        assert_eq!(Command::new(PROGRAM).args(arguments).output().unwrap().status.code(), Some(2), "{arguments:?}");
    }
    assert!(Command::new(PROGRAM).arg("--help").output().unwrap().status.success());
}

#[test]
fn commands_without_a_running_edge_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let state: &Path = folder.path();

    let output = Command::new(PROGRAM).arg("status").arg("--state").arg(state).output().unwrap();

    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no hearthgate is running"), "{}", stderr(&output));
}
