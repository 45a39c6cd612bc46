//! `bowline key`: make and show identities.

use std::path::PathBuf;

use bowline::net::{SystemEntropy, key_file};
use bowline::secure::Identity;

use super::Failure;
use super::places::{identity, place};

pub(super) fn new(file: Option<PathBuf>) -> Result<(), Failure> {
    let path = place(file, "key")?;
    let identity = Identity::generate(&mut SystemEntropy)
        .map_err(|error| Failure::of("cannot make an identity", &error))?;
    key_file::create(&path, &identity.to_text())
        .map_err(|error| Failure::of("cannot make an identity", &error))?;
    print(&identity);
    eprintln!("the secret half is in {}; whoever has it is this machine to others", path.display());
    Ok(())
}

pub(super) fn show(file: Option<PathBuf>) -> Result<(), Failure> {
    print(&*identity(file)?);
    Ok(())
}

fn print(identity: &Identity) {
    let key = identity.public();
    println!("key {key}");
    println!("fingerprint {}", key.fingerprint());
}
