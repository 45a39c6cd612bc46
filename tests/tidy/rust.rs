//! Rust source as the rules need it: tokens without comments and texts, and the paths that they name.

/// A word, a number, `::`, or one other character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
    /// Whether it stands in a `#[cfg(test)] mod`.
    pub(crate) in_test: bool,
}

/// A path that the source names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedPath {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
    pub(crate) in_test: bool,
    /// Whether a `use` brings it in, so that what is below it can be named without it.
    pub(crate) is_use: bool,
    /// The modules around it that are written in the same file.
    pub(crate) inline_modules: Vec<String>,
}

impl NamedPath {
    pub(crate) fn text(&self) -> String {
        self.segments.join("::")
    }
}

/// The tokens of `source`; comments, texts, characters and lifetimes leave none.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer { rest: source.chars().collect(), at: 0, line: 1, tokens: Vec::new() };
    while lexer.step() {}
    let mut tokens = lexer.tokens;
    mark_tests(&mut tokens);
    tokens
}

/// The attributes of the source, each as its tokens between the brackets.
pub(crate) fn attributes(tokens: &[Token]) -> Vec<&[Token]> {
    let mut found = Vec::new();
    for (at, _) in tokens.iter().enumerate().filter(|(_, token)| token.text == "#") {
        let open = at + 1 + usize::from(text_at(tokens, at + 1) == "!");
        if text_at(tokens, open) == "[" {
            found.push(&tokens[open + 1..closing(tokens, open)]);
        }
    }
    found
}

/// Every path of the source: those that `use` brings in, one by one, and those written where they are used.
pub(crate) fn paths(tokens: &[Token]) -> Vec<NamedPath> {
    let mut found = Vec::new();
    // Names of the modules around the place, each with the depth of braces in which it began.
    let mut modules: Vec<(String, usize)> = Vec::new();
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(token) = tokens.get(at) {
        let inline: Vec<String> = modules.iter().map(|(name, _)| name.clone()).collect();
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                modules.retain(|(_, began)| *began < depth + 1);
            }
            "mod" if text_at(tokens, at + 2) == "{" => {
                modules.push((tokens[at + 1].text.clone(), depth + 1));
                at += 2;
                depth += 1;
            }
            "use" if text_at(tokens, at + 1) != "<" => {
                let first = found.len();
                at = use_tree(tokens, at + 1, &[], &mut found);
                found[first..].iter_mut().for_each(|path| path.inline_modules.clone_from(&inline));
            }
            word if is_word(word) && starts_path(tokens, at) => {
                let mut path = named(token, vec![word.to_owned()], false);
                while text_at(tokens, at + 1) == "::" && is_word(text_at(tokens, at + 2)) {
                    path.segments.push(tokens[at + 2].text.clone());
                    at += 2;
                }
                path.inline_modules = inline;
                found.push(path);
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Whether the word at `at` begins a path: nothing, or nothing but a leading `::`, stands before it.
fn starts_path(tokens: &[Token], at: usize) -> bool {
    let before = |back: usize| at.checked_sub(back).map_or("", |at| text_at(tokens, at));
    match before(1) {
        // A method or a field, unless it is the second dot of a range.
        "." => before(2) == ".",
        "::" => !is_word(before(2)) && before(2) != ">",
        _ => true,
    }
}

/// Reads one tree of a `use` behind `prefix` and returns where it ends: at a `,`, `}` or `;`.
fn use_tree(tokens: &[Token], mut at: usize, prefix: &[String], found: &mut Vec<NamedPath>) -> usize {
    let mut segments = prefix.to_vec();
    loop {
        match text_at(tokens, at) {
            "::" => at += 1,
            "{" => {
                at += 1;
                while !matches!(text_at(tokens, at), "}" | "") {
                    at = use_tree(tokens, at, &segments, found);
                    at += usize::from(text_at(tokens, at) == ",");
                }
                return at + 1;
            }
            "as" => at += 2,
            "," | "}" | ";" | "" => {
                // `{self}` names what stands before the brace.
                if segments.len() > 1 && segments.last().is_some_and(|last| last == "self" || last == "*") {
                    segments.pop();
                }
                let token = &tokens[at.saturating_sub(1).min(tokens.len() - 1)];
                found.push(named(token, segments, true));
                return at;
            }
            word => {
                segments.push(word.to_owned());
                at += 1;
            }
        }
    }
}

fn named(token: &Token, segments: Vec<String>, is_use: bool) -> NamedPath {
    NamedPath { segments, line: token.line, in_test: token.in_test, is_use, inline_modules: Vec::new() }
}

fn mark_tests(tokens: &mut [Token]) {
    const CFG_TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    for at in 0..tokens.len() {
        if !CFG_TEST.iter().enumerate().all(|(ahead, text)| text_at(tokens, at + ahead) == *text) {
            continue;
        }
        let mut item = at + CFG_TEST.len();
        while text_at(tokens, item) == "#" {
            item = closing(tokens, item + 1) + 1;
        }
        let open = (item..tokens.len()).find(|&at| matches!(text_at(tokens, at), "{" | ";"));
        let end = open.map_or(tokens.len(), |open| closing(tokens, open));
        tokens[at..end].iter_mut().for_each(|token| token.in_test = true);
    }
}

/// Where the bracket at `open` is closed; `open` itself if no bracket stands there.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len()
}

fn text_at(tokens: &[Token], at: usize) -> &str {
    tokens.get(at).map_or("", |token| &token.text)
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

struct Lexer {
    rest: Vec<char>,
    at: usize,
    line: usize,
    tokens: Vec<Token>,
}

impl Lexer {
    fn step(&mut self) -> bool {
        let Some(c) = self.peek(0) else { return false };
        match (c, self.peek(1)) {
            ('/', Some('/')) => self.skip_while(|c| c != '\n'),
            ('/', Some('*')) => self.skip_block_comment(),
            ('"', _) => self.skip_text(),
            ('\'', _) => self.skip_quote(),
            (':', Some(':')) => self.emit(2),
            (c, _) if c.is_alphanumeric() || c == '_' => self.word(),
            (c, _) if c.is_whitespace() => self.skip(1),
            _ => self.emit(1),
        }
        true
    }

    fn word(&mut self) {
        let len = self.rest[self.at..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
        let word: String = self.rest[self.at..self.at + len].iter().collect();
        let hashes = self.rest[self.at + len..].iter().take_while(|c| **c == '#').count();
        let is_text = self.peek(len + hashes) == Some('"');
        match word.as_str() {
            "r" | "br" | "cr" if is_text => self.skip_raw_text(len + hashes, hashes),
            "b" | "c" if is_text && hashes == 0 => {
                self.skip(1);
                self.skip_text();
            }
            "b" if self.peek(1) == Some('\'') => {
                self.skip(1);
                self.skip_quote();
            }
            // A raw name is the name.
            "r" if hashes == 1 => self.skip(2),
            _ => self.emit(len),
        }
    }

    fn skip_block_comment(&mut self) {
        let mut depth = 0;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => {
                    depth += 1;
                    self.skip(2);
                }
                (Some('*'), Some('/')) => {
                    depth -= 1;
                    self.skip(2);
                    if depth == 0 {
                        return;
                    }
                }
                (Some(_), _) => self.skip(1),
                (None, _) => return,
            }
        }
    }

    fn skip_text(&mut self) {
        self.skip(1);
        while let Some(c) = self.peek(0) {
            self.skip(if c == '\\' { 2 } else { 1 });
            if c == '"' {
                return;
            }
        }
    }

    fn skip_raw_text(&mut self, before: usize, hashes: usize) {
        self.skip(before + 1);
        while let Some(c) = self.peek(0) {
            self.skip(1);
            if c == '"' && (0..hashes).all(|ahead| self.peek(ahead) == Some('#')) {
                self.skip(hashes);
                return;
            }
        }
    }

    /// Skips a character, or the quote of a lifetime with its name.
    fn skip_quote(&mut self) {
        if self.peek(1) == Some('\\') {
            self.skip(3);
            self.skip_while(|c| c != '\'');
            self.skip(1);
        } else if self.peek(2) == Some('\'') {
            self.skip(3);
        } else {
            self.skip(1);
            self.skip_while(|c| c.is_alphanumeric() || c == '_');
        }
    }

    fn emit(&mut self, len: usize) {
        let end = (self.at + len).min(self.rest.len());
        let text = self.rest[self.at..end].iter().collect();
        self.tokens.push(Token { text, line: self.line, in_test: false });
        self.skip(len);
    }

    fn skip_while(&mut self, is_part: impl Fn(char) -> bool) {
        while self.peek(0).is_some_and(&is_part) {
            self.skip(1);
        }
    }

    fn skip(&mut self, len: usize) {
        let end = (self.at + len).min(self.rest.len());
        self.line += self.rest[self.at..end].iter().filter(|c| **c == '\n').count();
        self.at = end;
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.rest.get(self.at + ahead).copied()
    }
}
