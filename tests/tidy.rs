//! Fails on untidy source: each rule is a function from a file's text to what is wrong with it, one test applies
//! it to the tree, and another shows on planted text that it catches what it should.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a panic fails the test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rust::{NamedPath, attributes, paths, tokens};

#[path = "tidy/rust.rs"]
mod rust;

/// The folders of `src` and their tiers: uses point down only. docs/architecture.md has the table with reasons.
const TIERS: [(&str, u8); 10] = [
    ("model", 0),
    ("wire", 1),
    ("secure", 1),
    ("opens", 1),
    ("session", 2),
    ("net", 3),
    ("server", 4),
    ("client", 4),
    ("mount", 5),
    ("cli", 6),
];

/// Uses within one tier: records and handshakes are made of the wire's formats.
const WITHIN_A_TIER: [(&str, &str); 1] = [("secure", "wire")];

/// Folders that bytes and time come into from outside.
const PURE: [&str; 5] = ["model", "wire", "secure", "opens", "session"];

/// What a pure folder must not name: I/O, clocks, randomness, and the crates that bring them.
const IMPURE: [&str; 18] = [
    "std::io",
    "std::fs",
    "std::net",
    "std::os",
    "std::thread",
    "std::env",
    "std::process",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::time::UNIX_EPOCH",
    "tokio",
    "tokio_util",
    "getrandom",
    "rand",
    "socket2",
    "rustix",
    "tracing",
    "jiff",
];

/// Values that happen to live beside I/O.
const ADDRESSES: [&str; 6] = ["IpAddr", "Ipv4Addr", "Ipv6Addr", "SocketAddr", "SocketAddrV4", "SocketAddrV6"];

/// What the tests of a pure folder may name all the same: a seed to replay, a snapshot to compare, a deep stack.
const IMPURE_IN_TESTS: [&str; 3] = ["std::env", "std::fs", "std::thread"];

/// The one file that reads a clock.
const CLOCK: &str = "src/net/clock.rs";
const CLOCKS: [&str; 4] = ["Instant", "SystemTime", "Timestamp", "Zoned"];

/// The one file that names the unmaintained codec.
const CODEC: &str = "src/wire/codec.rs";

/// Files that may hold `unsafe`. There is none.
const UNSAFE: [&str; 0] = [];

const LINES_MAX: usize = 700;

const STREAMS: [&str; 4] = ["ClientControl", "ServerControl", "ClientData", "ServerData"];

#[test]
fn uses_point_down_the_tiers() {
    check(&["src"], tiers);
}

#[test]
fn pure_folders_name_nothing_impure() {
    check(&["src"], purity);
}

#[test]
fn each_file_says_what_it_is_for() {
    check(&["src"], opening);
}

#[test]
fn files_and_lines_keep_their_form() {
    check(&["src", "tests", "examples", "benches", "fuzz"], form);
}

#[test]
fn exemptions_expect_what_they_exempt() {
    check(&["src", "fuzz"], exemptions);
}

#[test]
fn some_names_have_one_place() {
    check(&["src", "tests", "examples", "benches", "fuzz"], places);
}

#[test]
fn protocol_and_code_have_the_same_messages() {
    let text = std::fs::read_to_string(root().join("docs/protocol.md")).expect("docs/protocol.md is there");
    let code: BTreeSet<Row> = bowline::wire::message::kinds()
        .into_iter()
        .map(|(stream, name, kind)| (stream.to_owned(), name.to_owned(), kind))
        .collect();
    report(&messages(&text, &code));
}

#[test]
fn links_lead_somewhere() {
    let root = root();
    let docs = files(&root.join("docs"), "md").into_iter().chain(Some(root.join("README.md")));
    let mut found = Vec::new();
    for file in docs.filter(|file| file.is_file()) {
        let text = std::fs::read_to_string(&file).expect("a document is text");
        let folder = file.parent().expect("a file is in a folder");
        let broken = links(&text).into_iter().filter(|(_, target)| !folder.join(target).exists());
        found.extend(
            broken.map(|(line, target)| {
                format!("{}:{line}: nothing stands at {target}", shown(&file).display())
            }),
        );
    }
    report(&found);
}

#[test]
fn numbers_in_names_are_those_of_the_lists() {
    check(&["src", "tests", "examples"], numbers);
}

/// What docs/testing.md says that there is: files, targets of `cargo test` and `cargo bench`, and tests by their numbers.
#[test]
fn what_the_document_about_tests_names_is_there() {
    let root = root();
    let text = std::fs::read_to_string(root.join("docs/testing.md")).expect("docs/testing.md is there");
    let mut names = BTreeSet::new();
    for file in ["src", "tests"].iter().flat_map(|folder| files(&root.join(folder), "rs")) {
        names.extend(functions(&std::fs::read_to_string(&file).expect("source is text")));
    }
    let is_file = |path: &str| root.join(path).exists();
    let mut found = claims(&text, &names, &is_file);
    let tests = std::fs::read_dir(root.join("tests")).expect("there are tests");
    for path in tests.map(|entry| entry.expect("the folder can be read").path()) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.ends_with(".rs") && !text.contains(&format!("`tests/{name}`")) {
            found.push(format!("docs/testing.md: nothing is said of tests/{name}"));
        }
    }
    report(&found);
}

/// Applies a rule to the Rust files of `folders` and fails with everything that it finds.
fn check(folders: &[&str], rule: fn(&str, &str) -> Vec<String>) {
    let mut found = Vec::new();
    for file in folders.iter().flat_map(|folder| files(&root().join(folder), "rs")) {
        let text = std::fs::read_to_string(&file).expect("source is text");
        found.extend(rule(&shown(&file).to_string_lossy(), &text));
    }
    report(&found);
}

fn report(found: &[String]) {
    assert!(found.is_empty(), "untidy:\n{}\n", found.join("\n"));
}

/// The package, where the test runs; another tree can be checked by naming it in `CARGO_MANIFEST_DIR`.
fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into()).into()
}

fn shown(file: &Path) -> PathBuf {
    file.strip_prefix(root()).unwrap_or(file).to_owned()
}

/// The files below `folder` whose names end so, but for what builds leave behind.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.expect("the folder can be read").path()) {
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                found.extend(files(&path, ending));
            }
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Rule: a folder uses itself and lower tiers.
fn tiers(file: &str, source: &str) -> Vec<String> {
    let module = module_of(file);
    let Some(own) = module.first().filter(|own| !matches!(own.as_str(), "lib" | "main" | "build")) else {
        return Vec::new();
    };
    if tier(own).is_none() {
        return vec![format!("{file}:1: {own} has no tier: give it one in tests/tidy.rs")];
    }
    let mut found = Vec::new();
    for path in paths(&tokens(source)) {
        let Some(target) = resolve(&module, &path) else { continue };
        let why = match target.first() {
            None => "names the crate's root; name the folder".to_owned(),
            Some(other) if tier(other).is_none() => format!("names {other}, which has no tier"),
            Some(other) if !may_use(own, other) => format!("{own} must not use {other}"),
            Some(_) => continue,
        };
        found.push(format!("{file}:{}: {}: {why}", path.line, path.text()));
    }
    found
}

fn tier(folder: &str) -> Option<u8> {
    TIERS.iter().find(|(name, _)| *name == folder).map(|(_, tier)| *tier)
}

fn may_use(own: &str, other: &str) -> bool {
    own == other || tier(other) < tier(own) || WITHIN_A_TIER.contains(&(own, other))
}

/// The module that a file of `src` is: `src/wire/hello.rs` is `wire::hello`.
fn module_of(file: &str) -> Vec<String> {
    let name = file.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    name.split('/').map(str::to_owned).collect()
}

/// What a path in `module` names, from the crate's root on; `None` where it names no module of this crate.
fn resolve(module: &[String], path: &NamedPath) -> Option<Vec<String>> {
    let mut base: Vec<String> = module.iter().chain(&path.inline_modules).cloned().collect();
    let mut rest = path.segments.as_slice();
    match rest {
        [first, ..] if first == "crate" => {
            base.clear();
            rest = &rest[1..];
        }
        [first, ..] if first == "self" || first == "super" => {
            while let [first, behind @ ..] = rest {
                match first.as_str() {
                    "self" => {}
                    "super" => drop(base.pop()),
                    _ => break,
                }
                rest = behind;
            }
        }
        _ => return None,
    }
    base.extend_from_slice(rest);
    // `pub(crate)` and `pub(in super::super)` name the root to be seen by it, and use nothing.
    (path.is_use || !base.is_empty()).then_some(base)
}

/// Rule: pure folders name no I/O, no clock, no randomness.
fn purity(file: &str, source: &str) -> Vec<String> {
    let module = module_of(file);
    if !module.first().is_some_and(|own| PURE.contains(&own.as_str())) {
        return Vec::new();
    }
    let is_test_file = module.last().is_some_and(|last| last == "tests");
    let mut found = Vec::new();
    for path in paths(&tokens(source)) {
        let exempt: &[&str] = if is_test_file || path.in_test { &IMPURE_IN_TESTS } else { &[] };
        let names = |impure: &str| !exempt.contains(&impure) && is_impure(&path, impure);
        if let Some(impure) = IMPURE.into_iter().find(|impure| names(impure)) {
            found.push(format!("{file}:{}: {} brings {impure} into a pure folder", path.line, path.text()));
        }
    }
    found
}

/// Whether `path` names `impure` or something in it, or brings in a module by which it can be named.
fn is_impure(path: &NamedPath, impure: &str) -> bool {
    let segments: Vec<&str> = path.segments.iter().map(String::as_str).collect();
    if let ["std", "net", name, ..] = segments[..]
        && ADDRESSES.contains(&name)
    {
        return false;
    }
    let impure: Vec<&str> = impure.split("::").collect();
    // A word alone is a crate only in a `use`; else it may be a variable.
    let is_named = segments.starts_with(&impure) && (segments.len() > 1 || path.is_use);
    is_named || (path.is_use && impure.starts_with(&segments))
}

/// Rule: each file opens with what it is for.
fn opening(file: &str, source: &str) -> Vec<String> {
    let first = source.lines().next().unwrap_or_default();
    let says = first.strip_prefix("//!").is_some_and(|text| !text.trim().is_empty());
    if says {
        Vec::new()
    } else {
        vec![format!("{file}:1: the file does not open with `//!` and what it is for")]
    }
}

/// Rule: files are short, and lines end where their text ends.
fn form(file: &str, source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let count = source.lines().count();
    if file.starts_with("src/") && !file.ends_with("/tests.rs") && count > LINES_MAX {
        found.push(format!("{file}: {count} lines are more than {LINES_MAX}"));
    }
    for (at, _) in source.split('\n').enumerate().filter(|(_, line)| line.ends_with([' ', '\t', '\r'])) {
        found.push(format!("{file}:{}: blanks at the end of the line", at + 1));
    }
    if !source.is_empty() && !source.ends_with('\n') {
        found.push(format!("{file}:{count}: the last line has no end"));
    }
    found
}

/// Rule: lints are exempted with `expect` and a reason, which goes stale loudly.
fn exemptions(file: &str, source: &str) -> Vec<String> {
    let tokens = tokens(source);
    let mut found = Vec::new();
    for attribute in attributes(&tokens) {
        for (at, token) in attribute.iter().enumerate() {
            if attribute.get(at + 1).is_none_or(|next| next.text != "(") {
                continue;
            }
            let has_reason = attribute[at..].iter().any(|token| token.text == "reason");
            match token.text.as_str() {
                "allow" => found.push(format!("{file}:{}: allow(..): use expect(..)", token.line)),
                "expect" if !has_reason => {
                    found.push(format!("{file}:{}: expect(..) without a reason", token.line));
                }
                _ => {}
            }
        }
    }
    found
}

/// Rule: `unsafe`, the codec's crate and the clock are named where they belong and nowhere else.
fn places(file: &str, source: &str) -> Vec<String> {
    let tokens = tokens(source);
    let mut found = Vec::new();
    for token in &tokens {
        if token.text == "unsafe" && !UNSAFE.contains(&file) {
            found.push(format!("{file}:{}: unsafe", token.line));
        }
        if token.text == "bincode" && file != CODEC {
            found.push(format!("{file}:{}: bincode is named in {CODEC} only", token.line));
        }
    }
    for path in paths(&tokens) {
        let reads_clock =
            path.segments.windows(2).any(|pair| CLOCKS.contains(&pair[0].as_str()) && pair[1] == "now");
        if reads_clock && file.starts_with("src/") && file != CLOCK {
            found.push(format!("{file}:{}: {}: the clock is read in {CLOCK} only", path.line, path.text()));
        }
    }
    found
}

type Row = (String, String, u8);

/// Rule: the tables of protocol.md list each message of the code, and no other.
fn messages(text: &str, code: &BTreeSet<Row>) -> Vec<String> {
    let mut found = Vec::new();
    let mut documented = BTreeSet::new();
    for (at, line) in text.lines().enumerate() {
        let cells: Vec<&str> = line.trim().split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let ["", stream, name, kind, _, ..] = cells[..] else { continue };
        if !STREAMS.contains(&stream) {
            continue;
        }
        let number = kind.strip_prefix("0x").and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let row = number.map(|number| (stream.to_owned(), name.to_owned(), number));
        match row {
            None => found.push(format!("docs/protocol.md:{}: {kind} is no kind like 0x10", at + 1)),
            Some(row) if !code.contains(&row) => {
                found.push(format!("docs/protocol.md:{}: the code has no {}", at + 1, shown_row(&row)));
            }
            Some(row) if !documented.insert(row.clone()) => {
                found.push(format!("docs/protocol.md:{}: {} stands there twice", at + 1, shown_row(&row)));
            }
            Some(_) => {}
        }
    }
    let missing = code.difference(&documented);
    found.extend(missing.map(|row| format!("docs/protocol.md: no row for {}", shown_row(row))));
    found
}

fn shown_row((stream, name, kind): &Row) -> String {
    format!("| {stream} | {name} | {kind:#04x} |")
}

/// The lists of behaviours, threats and faults, and how long they are.
const LISTS: [(char, u8); 3] = [('b', 44), ('t', 41), ('f', 80)];

/// The number that a part of a name is, `t03` for instance; the reason if it is none of the lists.
fn number(part: &str) -> Option<Result<(), String>> {
    let (list, digits) = (part.chars().next()?, part.get(1..)?);
    let (_, last) = LISTS.into_iter().find(|(known, _)| *known == list)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let is_one = digits.len() == 2 && digits.parse().is_ok_and(|number: u8| (1..=last).contains(&number));
    Some(if is_one { Ok(()) } else { Err(format!("is none of {list}01 to {list}{last}")) })
}

/// Rule: the numbers in the names of functions have two digits and exist, so that each is found by one spelling.
fn numbers(file: &str, source: &str) -> Vec<String> {
    let tokens = tokens(source);
    let mut found = Vec::new();
    for pair in tokens.windows(2).filter(|pair| pair[0].text == "fn") {
        for part in pair[1].text.split('_') {
            if let Some(Err(why)) = number(part) {
                found.push(format!("{file}:{}: {}: {part} {why}", pair[1].line, pair[1].text));
            }
        }
    }
    found
}

/// The names of the functions in `source`.
fn functions(source: &str) -> Vec<String> {
    let tokens = tokens(source);
    let names = tokens.windows(2).filter(|pair| pair[0].text == "fn").map(|pair| pair[1].text.clone());
    names.collect()
}

/// Rule: what stands in code in a document about tests exists: files of `tests` and `src`, targets behind `--test` and
/// `--bench`, numbers that a test's name has in it.
fn claims(text: &str, names: &BTreeSet<String>, is_file: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        // Every second part stands between backticks.
        for code in line.split('`').skip(1).step_by(2) {
            let words: Vec<&str> = code.split([' ', '/']).collect();
            for (before, word) in std::iter::once(&"").chain(&words).zip(&words) {
                let folder = match *before {
                    "--test" => "tests",
                    "--bench" => "benches",
                    _ => "",
                };
                if !folder.is_empty() && !is_file(&format!("{folder}/{word}.rs")) {
                    found.push(format!("docs/testing.md:{}: there is no {folder}/{word}.rs", at + 1));
                }
                let is_number = word
                    .strip_suffix('_')
                    .is_some_and(|id| id == "cve" || id.split('_').all(|part| number(part).is_some()));
                if is_number && !names.iter().any(|name| name.contains(word)) {
                    found.push(format!("docs/testing.md:{}: no test has {word} in its name", at + 1));
                }
            }
            let is_path = code.starts_with("tests/") || code.starts_with("src/");
            if is_path && !code.contains(' ') && !is_file(code) {
                found.push(format!("docs/testing.md:{}: there is no {code}", at + 1));
            }
        }
    }
    found
}

/// The relative links of a Markdown text outside of code, with their lines, without their anchors.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut is_code = false;
    for (at, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        if is_code {
            continue;
        }
        // Between backticks stands code: every second part.
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for (begin, _) in prose.match_indices("](") {
            let target = prose[begin + 2..].split([')', ' ']).next().unwrap_or_default();
            let target = target.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains(':') {
                found.push((at + 1, target.to_owned()));
            }
        }
    }
    found
}

/// What a rule finds in planted text: the numbers of the lines.
#[cfg(test)]
fn lines_found(rule: fn(&str, &str) -> Vec<String>, file: &str, source: &str) -> Vec<usize> {
    rule(file, source)
        .iter()
        .map(|found| {
            let line = found.strip_prefix(file).and_then(|rest| rest.split(':').nth(1));
            line.and_then(|line| line.parse().ok()).unwrap_or(0)
        })
        .collect()
}

#[test]
fn planted_upward_uses_are_caught() {
    let source = "use crate::model::{Time, Limits};\n\
        use crate::{wire::Head, session::{Session, self}};\n\
        // use crate::server::X;\n\
        /// [`crate::server::X`]\n\
        fn f() -> crate::net::Clock { \"crate::net::Clock\"; 'c'; r#\"\"crate::net\"#; 'a: loop {} }\n\
        mod tests { use super::super::super::client as x; use super::super::codec; }\n\
        pub(crate) struct S; pub(in super::super) struct T;\n\
        /* crate::cli /* crate::cli */ crate::cli */ use crate::surprise::Y;\n\
        use crate::*;\n\
        fn g(a: u8) -> A { A { a, ..crate::server::A::NEW } }\n";
    assert_eq!(lines_found(tiers, "src/wire/hello.rs", source), [2, 2, 5, 6, 8, 9, 10]);
    assert_eq!(lines_found(tiers, "src/lib.rs", source), [0; 0]);
    assert_eq!(lines_found(tiers, "src/surprise/mod.rs", ""), [1]);
}

#[test]
fn planted_tiers_are_told_apart() {
    for (own, other, may) in [
        ("secure", "wire", true),
        ("wire", "secure", false),
        ("opens", "wire", false),
        ("opens", "model", true),
        ("session", "opens", true),
        ("server", "client", false),
        ("client", "server", false),
        ("client", "net", true),
        ("net", "client", false),
        ("cli", "mount", true),
        ("model", "model", true),
    ] {
        let found = tiers(&format!("src/{own}/x.rs"), &format!("use crate::{other}::X;\n"));
        assert_eq!(found.is_empty(), may, "{own} uses {other}: {found:?}");
    }
}

#[test]
fn planted_impurities_are_caught() {
    let source = "use std::collections::BTreeMap;\n\
        use std::{fmt, io::{self, Read}};\n\
        use core::net::IpAddr; use std::net::SocketAddr; use std::time::Duration;\n\
        use std::net::TcpStream;\n\
        use std::time;\n\
        fn f() { let rand = 1; rand.max(2); ::tokio::spawn(x); }\n\
        fn g<T: std::io::Read>() -> std::time::Instant {}\n\
        use std::time::*;\n\
        #[cfg(test)]\n\
        mod tests {\n    use std::env;\n    use std::time::Instant;\n}\n\
        use std::env::var;\n\
        use rustix as r;\n";
    assert_eq!(lines_found(purity, "src/model/x.rs", source), [2, 2, 4, 5, 6, 7, 7, 8, 12, 14, 15]);
    assert_eq!(lines_found(purity, "src/model/x/tests.rs", "use std::{env, io};\n"), [1]);
    assert_eq!(lines_found(purity, "src/net/x.rs", source), [0; 0]);
}

#[test]
fn planted_untidy_forms_are_caught() {
    assert_eq!(lines_found(opening, "src/a.rs", "//! Why.\n"), [0; 0]);
    for bad in ["", "\n//! Late.\n", "//!\n", "// No.\n", "use a;\n"] {
        assert_eq!(lines_found(opening, "src/a.rs", bad), [1], "{bad:?}");
    }
    assert_eq!(lines_found(form, "src/a.rs", "a\nb \nc\t\nd\n"), [2, 3]);
    assert_eq!(lines_found(form, "src/a.rs", "a"), [1]);
    let long = "a\n".repeat(LINES_MAX + 1);
    assert_eq!(form("src/a.rs", &long).len(), 1);
    assert!(form("src/a.rs", &long[2..]).is_empty());
    assert!(form("src/a/tests.rs", &long).is_empty() && form("tests/a.rs", &long).is_empty());
}

#[test]
fn planted_exemptions_are_caught() {
    let source = "#![allow(dead_code)]\n\
        #[expect(dead_code, reason = \"why\")]\n\
        #[expect(dead_code)]\n\
        #[cfg_attr(test, allow(dead_code))]\n\
        fn allow(a: u8) { allow(a); x.expect(\"y\") } // #[allow(x)]\n";
    assert_eq!(lines_found(exemptions, "src/a.rs", source), [1, 3, 4]);
}

#[test]
fn planted_names_in_the_wrong_place_are_caught() {
    let source = "// unsafe bincode Instant::now()\n\
        fn f() { \"unsafe bincode\"; unsafe_code(); }\n\
        unsafe fn g() {}\n\
        use bincode::config;\n\
        fn h() { std::time::Instant::now(); clock.now(); Clock::now(); map(SystemTime::now); }\n";
    assert_eq!(lines_found(places, "src/server/x.rs", source), [3, 4, 5, 5]);
    assert_eq!(lines_found(places, CODEC, source), [3, 5, 5]);
    assert_eq!(lines_found(places, CLOCK, source), [3, 4]);
    assert_eq!(lines_found(places, "tests/x.rs", source), [3, 4]);
}

#[test]
fn planted_differences_of_messages_are_caught() {
    let row = |stream: &str, name: &str, kind| (stream.to_owned(), name.to_owned(), kind);
    let code = [row("ClientControl", "Open", 0x10), row("ServerData", "Refused", 0x9f)].into();
    let good = "| stream | name | kind | meaning |\n| --- | --- | --- | --- |\n\
        | ClientControl | `Open` | `0x10` | opens |\n| ServerData | Refused | 0x9f | no |\n";
    assert_eq!(messages(good, &code), [""; 0]);
    let found = messages(&good.replace("0x10", "0x11"), &code);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains(":3: the code has no | ClientControl | Open | 0x11 |"), "{found:?}");
    assert!(found[1].contains("no row for | ClientControl | Open | 0x10 |"), "{found:?}");
    assert_eq!(messages(&format!("{good}| ClientData | Stat | 0x14 | x |\n"), &code).len(), 1);
    assert_eq!(messages(&format!("{good}| ServerData | Refused | 0x9f | no |\n"), &code).len(), 1);
    assert!(messages(&good.replace("0x9f", "159"), &code)[0].contains("159 is no kind"));
    assert_eq!(messages("", &code).len(), 2);
}

#[test]
fn planted_links_are_found() {
    let text = "See [a](a.md), [b](../b.md#part) and [c](https://c.example/x).\n\
        ```\n[d](d.md)\n```\n`[e](e.md)` [f](#part) ![g](g.png \"title\")\n";
    let found = links(text);
    let found: Vec<_> = found.iter().map(|(line, target)| (*line, target.as_str())).collect();
    assert_eq!(found, [(1, "a.md"), (1, "../b.md"), (5, "g.png")]);
}

#[test]
fn planted_numbers_are_caught() {
    let source = "fn t03_a() {}\n\
        fn t3_a() {}\n\
        fn f081_a() {}\n\
        fn f81_a() {}\n\
        fn b44_t41_cve_2026_31711_f80_u64_of_100_t_f_4097th() {}\n\
        fn a_b45() {}\n\
        let t1 = fn_t1(); struct t1;\n";
    assert_eq!(lines_found(numbers, "tests/x.rs", source), [2, 3, 4, 6]);
}

#[test]
fn planted_claims_are_caught() {
    let names = BTreeSet::from(["t03_a".to_owned(), "f09_t15_b".to_owned(), "t12_cve_2021_c".to_owned()]);
    let is_file = |path: &str| ["tests/a.rs", "tests/a", "benches/c.rs"].contains(&path);
    let good = "`tests/a.rs`, `tests/a`, `cargo test -- t03_`, `cve_`, `f09_t15_`; `--test a --bench c`; t04_ `name/tests.rs`\n";
    assert_eq!(claims(good, &names, &is_file), [""; 0]);
    for bad in [
        "`tests/b.rs`",
        "`src/b.rs`",
        "`t04_`",
        "`cargo test -- t15_t16_`",
        "`--test b`",
        "`X=1 cargo bench --bench a`",
    ] {
        let found = claims(bad, &names, &is_file);
        assert_eq!(found.len(), 1, "{bad}: {found:?}");
        assert!(found[0].starts_with("docs/testing.md:1: "), "{found:?}");
    }
}
