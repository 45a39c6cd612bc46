//! `bowline key`: make and show identities.

use std::path::PathBuf;

use bowline::net::{SystemEntropy, key_file};
use bowline::secure::Identity;
use serde::Serialize;

use super::arguments::KeyCommand;
use super::failure::Failure;
use super::output::{say, show_either};
use super::places::{identity, place};

pub(super) fn run(command: KeyCommand) -> Result<(), Failure> {
    match command {
        KeyCommand::New { file } => new(file),
        KeyCommand::Show { file } => show(file),
    }
}

/// A public key as an object.
#[derive(Serialize)]
struct Shown {
    #[serde(rename = "type")]
    kind: &'static str,
    key: String,
    fingerprint: String,
}

fn new(file: Option<PathBuf>) -> Result<(), Failure> {
    let path = place(file, "key")?;
    let identity = Identity::generate(&mut SystemEntropy)
        .map_err(|error| Failure::of("cannot make an identity", &error))?;
    key_file::create(&path, &identity.to_text())
        .map_err(|error| Failure::of("cannot make an identity", &error))?;
    say(&format!("the secret half is in {}; whoever has it is this machine to others\n", path.display()));
    print(&identity)
}

fn show(file: Option<PathBuf>) -> Result<(), Failure> {
    print(&*identity(file)?)
}

fn print(identity: &Identity) -> Result<(), Failure> {
    let key = identity.public();
    let shown = Shown { kind: "key", key: key.to_string(), fingerprint: key.fingerprint() };
    show_either(&shown, || format!("key {key}\nfingerprint {}\n", key.fingerprint()))
}
