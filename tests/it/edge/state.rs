//! The state folder: whose it is, and who writes into it.

use std::os::unix::fs::{MetadataExt, chown, symlink};

use super::*;

const NOBODY: u32 = 65534;

/// Files of root below the folder.
fn roots_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            found.extend(roots_files(&path));
        }
        if metadata.uid() == 0 {
            found.push(path);
        }
    }
    found
}

#[test]
fn root_follows_no_link_that_the_service_planted() {
    if !is_root() {
        return eprintln!("\nSKIPPED: this needs root");
    }
    let house = House::new();
    let victim = house.folder.path().join("victim");
    fs::write(&victim, "root's own").unwrap();
    for name in ["vpn.key.new", "vpn.key.link", "lock.new", "edits.toml.new"] {
        symlink(&victim, house.state().join(name)).unwrap();
    }
    chown(house.state(), Some(NOBODY), Some(NOBODY)).unwrap();

    let mut running = house.start();
    assert!(house.call(&["peer", "add", "laptop"]).status.success());
    running.signal(libc::SIGTERM);
    running.end();
    let config = house.file();
    let offline = house.call(&["peer", "add", "phone", "--config", config.to_str().unwrap()]);

    assert!(offline.status.success(), "{}", stderr(&offline));
    assert_eq!(fs::read_to_string(&victim).unwrap(), "root's own");
    assert_eq!(fs::metadata(&victim).unwrap().uid(), 0);
    assert_eq!(fs::metadata(house.state().join("vpn.key")).unwrap().uid(), NOBODY);
}

#[test]
fn root_gives_nothing_away_that_is_not_ours() {
    if !is_root() {
        return eprintln!("\nSKIPPED: this needs root");
    }
    let house = House::new();
    let (other, file) = (house.folder.path().join("etc"), house.file());
    fs::create_dir(&other).unwrap();
    fs::write(other.join("passwd"), "").unwrap();
    let other_text = other.to_str().unwrap();

    let arguments = ["run", "--config", file.to_str().unwrap(), "--user", "nobody", "--state", other_text];
    let output = Command::new(PROGRAM).args(arguments).output().unwrap();

    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("belongs to root and holds something else"), "{}", stderr(&output));
    assert_eq!(roots_files(&other).len(), 1);
    assert_eq!(fs::metadata(&other).unwrap().uid(), 0);
}

#[test]
fn a_start_that_fails_leaves_nothing_behind() {
    let house = House::new();
    fs::remove_dir_all(house.state()).unwrap();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    house.write(&house.text().replace("https = [\"127.0.0.1:0\"]", &format!("https = [\"{taken}\"]")));

    let output = house.run_command().output().unwrap();

    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(!house.state().exists());
}

#[test]
fn what_a_start_makes_is_the_services_own() {
    if !is_root() {
        return eprintln!("\nSKIPPED: this needs root");
    }
    let house = House::new();
    fs::remove_dir_all(house.state()).unwrap();

    let _running = house.start();

    assert_eq!(roots_files(&house.state()), [] as [PathBuf; 0]);
    assert!(house.state().join("vpn.key").exists());
}
