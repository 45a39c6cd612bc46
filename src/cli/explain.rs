//! `bowline explain`: what the codes of errors mean, what follows for the data, and what helps.

use serde::Serialize;

use super::failure::{Code, Failure};
use super::output::show_either;

/// A code as an object.
#[derive(Serialize)]
struct Explained {
    #[serde(rename = "type")]
    kind: &'static str,
    code: &'static str,
    exit: u8,
    text: &'static str,
}

pub(super) fn run(code: Option<&str>) -> Result<(), Failure> {
    let codes = match code {
        None => Code::ALL.to_vec(),
        Some(name) => vec![Code::named(name).ok_or_else(|| {
            let names: Vec<&str> = Code::ALL.iter().map(|code| code.name()).collect();
            Failure::coded(Code::NotFound, format!("there is no code \"{name}\""))
                .because(format!("the codes are {}", names.join(", ")))
                .try_this("bowline explain")
        })?],
    };
    for code in codes {
        let explained =
            Explained { kind: "explanation", code: code.name(), exit: code.exit(), text: text(code) };
        show_either(&explained, || format!("{}\n  {}\n", code.name(), text(code)))?;
    }
    Ok(())
}

/// What a code means: its section of docs/errors.md.
fn text(code: Code) -> &'static str {
    let sections = ERRORS.split("\n## ").skip(1);
    let of_code =
        sections.filter_map(|section| section.split_once("\n")).find(|(name, _)| *name == code.name());
    of_code.map_or("", |(_, text)| text.trim())
}

const ERRORS: &str = include_str!("../../docs/errors.md");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_is_explained_with_its_number_and_nothing_else_is() {
        for code in Code::ALL {
            assert!(text(code).starts_with(&format!("Ends with {}. ", code.exit())), "{code:?}");
        }
        assert_eq!(ERRORS.matches("\n## ").count(), Code::ALL.len());
    }
}
