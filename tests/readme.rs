//! The README's walk between two machines, done as it is written: its commands and files, with real keys, a
//! temporary directory and loopback addresses in place of the ones that it makes up.
#![cfg(feature = "program")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a panic fails the test")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

const README: &str = include_str!("../README.md");

/// The README's blocks of one language, in order.
fn blocks(language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    README.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// The one `bowline` command of the README that starts so.
fn command(start: &str) -> String {
    let all = blocks("sh");
    let mut meant = all.iter().flat_map(|block| block.lines()).filter(|line| line.starts_with(start));
    let line = meant.next().unwrap_or_else(|| panic!("the README has no command {start}"));
    assert!(meant.next().is_none(), "the README has {start} twice");
    line.to_owned()
}

/// Runs a command line as a shell would, with `bowline` from this build and a home directory of its own.
fn shell(line: &str, home: &Path) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_bowline")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    // The shell is replaced, so that the child that is stopped is the program.
    command.arg("-c").arg(if line.contains('>') { line.to_owned() } else { format!("exec {line}") });
    command.env("PATH", path).env("HOME", home).current_dir(home);
    for variable in ["XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"] {
        command.env_remove(variable);
    }
    command
}

/// Runs a command line that succeeds.
#[track_caller]
fn done(line: &str, home: &Path) {
    let done = shell(line, home).output().unwrap();
    assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
}

fn new_key(home: &Path) -> String {
    fs::create_dir(home).unwrap();
    let made = shell(&command("bowline key new"), home).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let text = String::from_utf8(made.stdout).unwrap();
    text.lines().find_map(|line| line.strip_prefix("key ")).unwrap().to_owned()
}

#[test]
fn the_walk_between_two_machines_works_as_written() {
    let folder = tempfile::tempdir().unwrap();
    let (server_home, client_home) = (folder.path().join("server"), folder.path().join("client"));
    let (server_key, client_key) = (new_key(&server_home), new_key(&client_home));
    let heir_home = folder.path().join("heir");
    let heir_key = new_key(&heir_home);
    let media = folder.path().join("media");
    fs::create_dir_all(media.join("clips")).unwrap();
    let content: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(media.join("clips/first.mov"), &content).unwrap();

    let settings = blocks("toml");
    let [clients, peers] = settings.as_slice() else { panic!("two settings files in the README") };
    let clients = clients.replace("the client's key", &client_key);
    let heir = format!("[[client]]\nkey = \"{heir_key}\"\nname = \"heir\"\nexports = [\"media\"]\n");
    let clients = clients + &heir;
    fs::write(server_home.join(".config/bowline/clients.toml"), clients).unwrap();
    let serve = command("bowline serve")
        .replace("/srv/media", media.to_str().unwrap())
        .replace("10.0.0.1:4477", "127.0.0.1:0")
        .replace("10.0.1.1:4477", "127.0.0.2:0");
    let mut server = shell(&format!("{serve} --until-stdin-closes"), &server_home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let bound: Vec<&str> = first.trim().strip_prefix("listening on ").unwrap().split(' ').collect();

    let trust = command("bowline peer trust").replace("10.0.0.1", bound[0]);
    let mut trusting =
        shell(&trust, &client_home).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    trusting.stdin.take().unwrap().write_all(b"yes\n").unwrap();
    assert!(trusting.wait().unwrap().success());
    let pinned = fs::read_to_string(client_home.join(".config/bowline/peers.toml")).unwrap();
    assert!(pinned.contains("name = \"store\"") && pinned.contains(&server_key), "{pinned}");

    let peers = peers
        .replace("the server's key", &server_key)
        .replace("10.0.0.1:4477", bound[0])
        .replace("10.0.1.1:4477", bound[1])
        .replace("10.0.0.2", "127.0.0.1")
        .replace("10.0.1.2", "127.0.0.2");
    fs::write(client_home.join(".config/bowline/peers.toml"), peers).unwrap();
    done(&command("bowline cat"), &client_home);
    assert!(fs::read(client_home.join("first.mov")).unwrap() == content);
    done(&command("bowline cp -r"), &client_home);
    assert!(fs::read(client_home.join("clips/first.mov")).unwrap() == content);

    // The other client has the server in its list, and is on the server's.
    let list = ".config/bowline/peers.toml";
    fs::copy(client_home.join(list), heir_home.join(list)).unwrap();
    let mut granting = shell(&command("bowline grant").replace("KEY", &heir_key), &client_home)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(granting.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().contains("until this ends")), "the grant stands");
    fs::rename(client_home.join("first.key"), heir_home.join("first.key")).unwrap();
    done(&command("bowline accept"), &heir_home);
    assert!(fs::read(heir_home.join("first.mov")).unwrap() == content);
    drop(granting.stdin.take());
    assert!(granting.wait().unwrap().success());

    drop(server.stdin.take());
    assert!(server.wait().unwrap().success());
}
