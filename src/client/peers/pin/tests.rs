//! What pinning does to files of every form: exactly what is meant, or nothing.

use std::fs;

use tempfile::TempDir;

use super::*;

const KEY_A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const KEY_B: &str = "baaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const KEY_C: &str = "caaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// A commented file with one peer, as people write them.
const FILE: &str = "# my servers\n\n[[peer]]  # the big one\nname = \"store\"\nkey = 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' # from Ann\n\
    addresses = [\n  \"10.0.0.1\", # cable\n  \"10.0.1.1:4477\", # other cable\n]\nprotection = \"sealed\"";

fn pin(name: &str, key: &str, address: &str) -> Pin {
    Pin { name: name.to_owned(), key: key.parse().unwrap(), address: address.parse().unwrap() }
}

struct Place {
    folder: TempDir,
}

impl Place {
    fn with(text: &str) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        fs::write(place.file(), text).unwrap();
        place
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("peers.toml")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    /// What was refused, with the file as it was.
    fn refused(&self, pin: &Pin, replaced: Option<&PublicKey>) -> PinError {
        let before = self.text();
        let error = pin.write(&self.file(), replaced).unwrap_err();
        assert_eq!(self.text(), before, "{error}");
        assert_eq!(fs::read_dir(self.folder.path()).unwrap().count(), 1, "nothing is left beside it");
        error
    }
}

#[test]
fn an_entry_is_added_behind_what_stands_there() {
    let new = pin("attic", KEY_B, "[fd00::1]:99");
    for text in ["", "# nobody", "# nobody\n", FILE] {
        let place = Place::with(text);
        assert_eq!(new.write(&place.file(), None).unwrap(), Pinned::Added);
        assert!(place.text().starts_with(text), "{}", place.text());
        assert!(place.text().ends_with(&new.entry()), "{}", place.text());
        let peers = Peers::load(&place.file()).unwrap();
        assert_eq!(
            new.standing(&peers),
            Standing::Pinned { peer: peers.named("attic").unwrap().clone(), has_line: true }
        );
        assert_eq!(new.write(&place.file(), None).unwrap(), Pinned::AsBefore);
    }
    let place = Place { folder: tempfile::tempdir().unwrap() };
    let nested = place.folder.path().join("a/b/peers.toml");
    assert_eq!(Peers::load_or_none(&nested).unwrap(), Peers::default());
    assert_eq!(new.write(&nested, None).unwrap(), Pinned::Added);
    assert_eq!(fs::read_to_string(nested).unwrap(), new.entry());
}

#[test]
fn a_line_is_added_to_the_addresses() {
    let new = pin("other", KEY_A, "10.0.2.1:4477");
    for (text, edited) in [
        (FILE.to_owned(), FILE.replace("\"10.0.1.1:4477\",", "\"10.0.1.1:4477\", \"10.0.2.1:4477\",")),
        (
            FILE.replace("[\n  \"10.0.0.1\", # cable\n  \"10.0.1.1:4477\", # other cable\n]", "[]")
                + "\n[[peer.line]]\naddress = \"10.0.0.9\"\n",
            FILE.replace(
                "[\n  \"10.0.0.1\", # cable\n  \"10.0.1.1:4477\", # other cable\n]",
                "[\"10.0.2.1:4477\"]",
            ) + "\n[[peer.line]]\naddress = \"10.0.0.9\"\n",
        ),
        (
            format!("peer = [{{ name = \"store\", key = \"{KEY_A}\", addresses = [\"10.0.0.1\"] }}]"),
            format!(
                "peer = [{{ name = \"store\", key = \"{KEY_A}\", addresses = [\"10.0.0.1\", \"10.0.2.1:4477\"] }}]"
            ),
        ),
    ] {
        let place = Place::with(&text);
        assert_eq!(new.write(&place.file(), None).unwrap(), Pinned::LineAdded);
        assert_eq!(place.text(), edited);
        assert_eq!(new.write(&place.file(), None).unwrap(), Pinned::AsBefore);
    }
}

#[test]
fn a_line_that_only_the_user_can_describe_is_left_to_the_user() {
    let new = pin("store", KEY_A, "10.0.2.1:4477");
    let entry = format!("[[peer]]\nname = \"store\"\nkey = \"{KEY_A}\"\n");
    let line =
        |address: &str, role: &str| format!("[[peer.line]]\naddress = \"{address}\"\nrole = \"{role}\"\n");
    for text in [
        // Lines with roles: one for everything would carry what must stay apart.
        format!("{entry}addresses = []\n{}{}", line("10.0.0.1", "bulk"), line("10.0.0.2", "keys")),
        format!("{entry}{}", line("10.0.0.1", "both")),
    ] {
        let place = Place::with(&text);
        assert_eq!(new.write(&place.file(), None).unwrap(), Pinned::LineLeft);
        assert_eq!(place.text(), text);
    }
    let all: Vec<String> = (1..=64).map(|at| format!("\"10.0.0.{at}\"")).collect();
    let full = format!("{entry}addresses = [{}]\n", all.join(","));
    let place = Place::with(&full);
    assert_eq!(new.write(&place.file(), None).unwrap(), Pinned::LineLeft);
    assert_eq!(place.text(), full);
}

#[test]
fn another_key_is_refused_unless_the_old_one_was_given_up() {
    let old = KEY_A.parse().unwrap();
    for new in [pin("store", KEY_B, "10.9.9.9:1"), pin("attic", KEY_B, "10.0.0.1:4477")] {
        let place = Place::with(FILE);
        for replaced in [None, Some(KEY_B.parse().unwrap())] {
            let error = place.refused(&new, replaced.as_ref());
            assert!(error.to_string().contains("the server's key has changed: \"store\""), "{error}");
        }
        assert_eq!(new.write(&place.file(), Some(&old)).unwrap(), Pinned::Replaced);
        assert_eq!(place.text(), FILE.replace(KEY_A, KEY_B), "nothing but the key");
    }
    // A key that is spelt with escapes, or another peer's.
    let escaped = FILE.replace(&format!("'{KEY_A}'"), &format!("\"\\u0061{}\"", &KEY_A[1..]));
    let new = pin("store", KEY_B, "10.0.0.1:4477");
    let error = Place::with(&escaped).refused(&new, Some(&old));
    let PinError::Uneditable { write, .. } = error else { panic!("{error}") };
    assert_eq!(write, format!("key = \"{KEY_B}\" in the entry"));
    let two = format!("{FILE}\n{}", pin("attic", KEY_B, "10.0.0.7:1").entry());
    assert!(matches!(Place::with(&two).refused(&new, Some(&old)), PinError::Uneditable { .. }));
}

#[test]
fn what_is_known_of_a_server() {
    let text = format!("{FILE}\n{}", pin("attic", KEY_B, "10.0.0.7:1").entry());
    let peers = Peers::parse(&text).unwrap();
    let standing = |name, key, address| match pin(name, key, address).standing(&peers) {
        Standing::New => "new".to_owned(),
        Standing::Pinned { peer, has_line } => format!("{} {has_line}", peer.name),
        Standing::Changed { peer } => format!("not {}", peer.name),
    };
    assert_eq!(standing("cellar", KEY_C, "10.0.0.8:4477"), "new");
    assert_eq!(standing("store", KEY_A, "10.0.0.1:4477"), "store true");
    assert_eq!(standing("cellar", KEY_A, "10.0.0.1:4477"), "store true");
    assert_eq!(standing("cellar", KEY_A, "10.0.0.1:4478"), "store false", "another port is another line");
    assert_eq!(standing("cellar", KEY_C, "10.0.0.1:4477"), "not store");
    assert_eq!(standing("store", KEY_C, "10.0.0.8:4477"), "not store");
    assert_eq!(standing("attic", KEY_A, "10.0.0.1:4477"), "not attic", "the name says who is meant");
    assert_eq!(standing("cellar", KEY_A, "10.0.0.7:1"), "not attic", "somebody else's address");
}

#[test]
fn files_that_cannot_be_edited_are_left_alone() {
    let new = pin("attic", KEY_B, "10.0.2.1:4477");
    let inline = format!("peer = [{{ name = \"store\", key = \"{KEY_A}\", addresses = [\"10.0.0.1\"] }}]");
    let error = Place::with(&inline).refused(&new, None);
    let PinError::Uneditable { write, .. } = error else { panic!("{error}") };
    assert_eq!(
        write,
        format!("[[peer]], name = \"attic\", key = \"{KEY_B}\", addresses = [\"10.0.2.1:4477\"]")
    );
    assert!(matches!(Place::with("[[peer").refused(&new, None), PinError::Peers(_)));
    let long = format!("#{}\n", "x".repeat((1 << 20) - 10));
    assert!(matches!(Place::with(&long).refused(&new, None), PinError::Uneditable { .. }));
    let unnamed = Pin { name: "a\"b".to_owned(), ..new };
    assert!(matches!(Place::with("").refused(&unnamed, None), PinError::Name(_)));
}

#[test]
fn hosts_become_names() {
    for (host, name) in [
        ("store.example", "store.example"),
        ("store.example.", "store.example"),
        ("10.0.0.1", "10.0.0.1"),
        ("fd00::1", "fd00--1"),
        ("::1", "1"),
        ("-", "peer"),
    ] {
        assert_eq!(peer_name(host), name);
        assert!(is_plain_name(&peer_name(host)));
    }
    assert_eq!(peer_name(&"x".repeat(200)).len(), 64);
}
