use super::*;

fn words() -> Passphrase {
    Passphrase::of("correct horse battery").unwrap()
}

fn piece(name: &str, content: &str) -> Piece {
    Piece { name: name.into(), content: Content::Bytes(content.into()) }
}

fn written(manifest: Manifest, pieces: &[Piece]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    write(&mut file, manifest, pieces, &words(), age::Cost::Beside).unwrap();
    file
}

fn about() -> Manifest {
    manifest(1_764_000_000, Some("/etc/hearthgate/hearthgate.toml".into()), "/var/lib/hearthgate".into())
}

#[test]
fn what_was_kept_lies_where_it_is_unpacked() {
    let folder = tempfile::tempdir().unwrap();
    let history = folder.path().join("copy");
    fs::write(&history, vec![9; 200_000]).unwrap();
    let pieces = [
        piece("config/hearthgate.toml", "[dns]\n"),
        piece("state/ca/root", "key"),
        Piece { name: HISTORY.into(), content: Content::File(history) },
    ];

    let checked = check(written(about(), &pieces), &words()).unwrap();
    checked.unpack(folder.path()).unwrap();

    assert_eq!(checked.manifest.pieces.len(), 3);
    assert_eq!(checked.manifest.file, about().file);
    assert_eq!(fs::read_to_string(folder.path().join("config/hearthgate.toml")).unwrap(), "[dns]\n");
    assert_eq!(fs::read(folder.path().join(HISTORY)).unwrap(), vec![9; 200_000]);
    // Nothing is written over.
    assert!(checked.unpack(folder.path()).is_err());
}

#[test]
fn a_folder_is_read_without_what_belongs_to_the_process() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["lock", "edits.toml", "edits.toml.old", "edits.toml.new", "vpn.key", "history.db", "history.spool"] {
        fs::write(folder.path().join(name), name).unwrap();
    }
    for (below, name) in [("lists", "table"), ("ca", "root")] {
        store::folder(&folder.path().join(below)).unwrap();
        fs::write(folder.path().join(below).join(name), "x").unwrap();
    }
    std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link-elsewhere")).unwrap();

    let pieces = state(folder.path()).unwrap();

    let names: Vec<&str> = pieces.iter().map(|piece| piece.name.as_str()).collect();
    assert_eq!(names, ["state/ca/root", "state/edits.toml", "state/edits.toml.old", "state/vpn.key"]);
}

#[test]
fn a_backup_of_a_later_form_is_refused_with_a_sentence() {
    let later = Manifest { format: 2, version: "9.1.0".into(), ..about() };

    let refused = check(written(later, &[piece("state/vpn.key", "x")]), &words()).unwrap_err();

    assert!(refused.to_string().contains("hearthgate 9.1.0 in form 2"), "{refused}");
}

#[test]
fn what_is_no_backup_is_refused() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"age-encryption.org/v2\n").unwrap();

    assert!(matches!(check(file, &words()), Err(Error::Age(age::Error::Foreign))));
    assert!(matches!(check(File::open("/dev/null").unwrap(), &words()), Err(Error::Broken(_))));
}

#[test]
fn files_that_the_manifest_does_not_name_or_names_otherwise_are_refused() {
    let mut archive = Vec::new();
    for (pieces, content) in [("{}", "x"), ("{\"state/a\":\"00\"}", "x"), ("{\"state/b\":\"00\"}", "x")] {
        let text = format!(r#"{{"format":1,"version":"0","made":0,"file":null,"state":"/s","pieces":{pieces}}}"#);
        let mut writer = tar::Writer::new(age::Writer::begin(Vec::new(), &words(), age::Cost::Beside).unwrap(), 0);
        writer.add(MANIFEST, text.len() as u64, text.as_bytes()).unwrap();
        writer.add("state/a", 1, content.as_bytes()).unwrap();
        archive.push(writer.finish().unwrap().finish().unwrap());
    }

    for bytes in archive {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        assert!(matches!(check(file, &words()), Err(Error::Broken(_))));
    }
}
