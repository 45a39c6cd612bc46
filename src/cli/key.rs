//! `bowline key`: make and show identities.

use std::path::PathBuf;

use bowline::net::{SystemEntropy, key_file};
use bowline::secure::Identity;

use super::places::{identity, place};
use super::{Failure, say};

pub(super) fn new(file: Option<PathBuf>) -> Result<(), Failure> {
    let path = place(file, "key")?;
    let identity = Identity::generate(&mut SystemEntropy)
        .map_err(|error| Failure::of("cannot make an identity", &error))?;
    key_file::create(&path, &identity.to_text())
        .map_err(|error| Failure::of("cannot make an identity", &error))?;
    say(&format!("the secret half is in {}; whoever has it is this machine to others\n", path.display()));
    print(&identity)
}

pub(super) fn show(file: Option<PathBuf>) -> Result<(), Failure> {
    print(&*identity(file)?)
}

fn print(identity: &Identity) -> Result<(), Failure> {
    let key = identity.public();
    super::show(&format!("key {key}\nfingerprint {}\n", key.fingerprint()))
}
