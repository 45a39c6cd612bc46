//! `bowline completions` and `bowline man`: what shells and people read about the program.

use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

use super::arguments::Arguments;
use super::failure::{Code, Failure};
use super::output::{show, style};

pub(super) fn completions(shell: Shell) -> Result<(), Failure> {
    refuse_json("a shell's script")?;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "bowline", &mut script);
    show(&String::from_utf8_lossy(&script))
}

pub(super) fn man(dir: Option<PathBuf>) -> Result<(), Failure> {
    refuse_json("a manual page")?;
    let program = Arguments::command();
    match dir {
        Some(dir) => pages(&dir, program, "bowline"),
        None => show(&String::from_utf8_lossy(&page(program, "bowline")?)),
    }
}

fn refuse_json(what: &str) -> Result<(), Failure> {
    match style().json {
        true => Err(Failure::coded(Code::Settings, format!("{what} is no JSON"))
            .try_this("the same command without --json")),
        false => Ok(()),
    }
}

fn page(command: Command, name: &str) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    // A page is found under one word.
    let named = command.name(name.to_owned());
    clap_mangen::Man::new(named)
        .render(&mut page)
        .map_err(|error| Failure::of("cannot make the manual page", &error))?;
    Ok(page)
}

/// Writes the page of a command and those of its parts.
fn pages(dir: &Path, command: Command, name: &str) -> Result<(), Failure> {
    for part in command.get_subcommands().filter(|part| part.get_name() != "help") {
        pages(dir, part.clone(), &format!("{name}-{}", part.get_name()))?;
    }
    let path = dir.join(format!("{name}.1"));
    std::fs::write(&path, page(command, name)?)
        .map_err(|error| Failure::of(&format!("cannot write {}", path.display()), &error))
}
