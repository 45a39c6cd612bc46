//! Where results go and how: text for people or one JSON object a line, on standard output; everything else on standard
//! error.

use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::sync::OnceLock;

use clap::ValueEnum;
use serde::Serialize;

use super::failure::Failure;

/// When the output has colors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Color {
    /// On a terminal, unless NO_COLOR is set or TERM is dumb.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How a command is to talk.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Style {
    /// Results are JSON objects, one a line.
    pub(super) json: bool,
    /// Nothing but results and errors.
    pub(super) quiet: bool,
    /// Standard error has colors and lines that are drawn over.
    pub(super) color: Color,
}

static STYLE: OnceLock<Style> = OnceLock::new();

/// Fixes how this process talks, once, before anything is said.
pub(super) fn set_style(style: Style) {
    // A second one in a process is a test's.
    let _first = STYLE.set(style);
}

/// How this process talks.
pub(super) fn style() -> Style {
    STYLE.get().copied().unwrap_or_default()
}

impl Style {
    /// Whether standard error is a terminal to draw on.
    pub(super) fn is_drawn(self) -> bool {
        !self.json && !self.quiet && io::stderr().is_terminal() && !is_dumb()
    }

    /// Whether standard error has colors.
    pub(super) fn is_colored(self) -> bool {
        match self.color {
            Color::Always => true,
            Color::Never => false,
            // The convention: any value but the empty one.
            Color::Auto => {
                let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                io::stderr().is_terminal() && !is_unwanted && !is_dumb()
            }
        }
    }
}

fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// A name or a message from elsewhere, fit for one line of a terminal: control characters are written as escapes.
pub(super) fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for char in text.chars() {
        // Also those that change the direction of what stands around them.
        if char.is_control()
            || matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            cleaned.extend(char.escape_debug());
        } else {
            cleaned.push(char);
        }
    }
    cleaned
}

/// The bytes of a name, fit for one line of a terminal.
pub(super) fn clean_bytes(name: &[u8]) -> String {
    let mut cleaned = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        cleaned.push_str(&clean(chunk.valid()));
        chunk.invalid().iter().for_each(|byte| cleaned.push_str(&format!("\\x{byte:02x}")));
    }
    cleaned
}

/// A value as one line of JSON.
pub(super) fn line(value: &impl Serialize) -> String {
    match serde_json::to_string(value) {
        Ok(mut line) => {
            line.push('\n');
            line
        }
        // What is printed has only strings for keys.
        Err(_) => String::new(),
    }
}

/// Tells people something that is no result; not with `--quiet`. If nobody can be told, there is nobody to tell that
/// either.
pub(super) fn say(text: &str) {
    if !style().quiet {
        insist(text);
    }
}

/// Tells people of what is not as it should be, though the command goes on; not with `--quiet`.
pub(super) fn warn(text: &str) {
    say(&format!("{}: {text}\n", Paint::Yellow.on("warning")));
}

/// Tells people of a failure.
pub(super) fn complain(failure: &Failure) {
    let text = failure.text();
    match text.strip_prefix("error") {
        Some(rest) => insist(&format!("{}{rest}", Paint::Red.on("error"))),
        None => insist(&text),
    }
}

/// The color of a word that is to be seen first.
#[derive(Debug, Clone, Copy)]
enum Paint {
    Red,
    Yellow,
}

impl Paint {
    /// The word in bold and in this color, where messages have colors.
    fn on(self, word: &str) -> String {
        let number = match self {
            Self::Red => 31,
            Self::Yellow => 33,
        };
        if style().is_colored() { format!("\u{1b}[1;{number}m{word}\u{1b}[0m") } else { word.to_owned() }
    }
}

/// Tells people something that they have to know.
pub(super) fn insist(text: &str) {
    drop(io::stderr().write_all(text.as_bytes()));
}

/// Writes results. Whoever closes the output has seen enough.
pub(super) fn show(text: &str) -> Result<(), Failure> {
    show_bytes(text.as_bytes())
}

/// As [`show`].
pub(super) fn show_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    unless_closed(out.write_all(bytes).and_then(|()| out.flush())).map(drop)
}

/// Writes a result: the object where JSON is wanted, and the text elsewhere.
pub(super) fn show_either(object: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
    if style().json { show(&line(object)) } else { show(&text()) }
}

/// Whether standard output still takes something, after it was written to.
pub(super) fn unless_closed(written: io::Result<()>) -> Result<bool, Failure> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::of("cannot write to standard output", &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_elsewhere_stay_on_their_line() {
        assert_eq!(clean("plain \u{e9} name"), "plain \u{e9} name");
        assert_eq!(clean("a\nb\u{1b}[31m\u{202e}"), "a\\nb\\u{1b}[31m\\u{202e}");
        assert_eq!(clean_bytes(b"ok\xff\n"), "ok\\xff\\n");
    }
}
