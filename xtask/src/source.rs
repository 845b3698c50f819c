//! Rust source as words and signs, so that a check sees code and never a comment or a string.
//!
//! This is a very rough lexer: it knows where comments and literals begin and end, but no grammar.
//! That is enough to find out whether a word occurs in the code.

/// A file, split up.
#[derive(Debug, Default)]
pub(crate) struct Source<'a> {
    pub(crate) tokens: Vec<Token<'a>>,
    pub(crate) comments: Vec<Comment<'a>>,
}

/// A word (names, keywords, numbers), a sign of one character, or the opening quote of a literal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    pub(crate) line: usize,
}

/// One line of a comment, without the slashes.
#[derive(Debug)]
pub(crate) struct Comment<'a> {
    pub(crate) text: &'a str,
    pub(crate) line: usize,
    /// Whether it documents an item or a file, and so may hold an example.
    pub(crate) doc: bool,
}

impl<'a> Source<'a> {
    /// Splits up `text`.
    pub(crate) fn scan(text: &'a str) -> Self {
        let mut scanner = Scanner {
            rest: text,
            line: 1,
            source: Self::default(),
        };
        while !scanner.rest.is_empty() {
            scanner.step();
        }
        scanner.source
    }

    /// The lines on which the tokens of `pattern` follow one another.
    pub(crate) fn find(&self, pattern: &[&str]) -> Vec<usize> {
        let windows = self.tokens.windows(pattern.len());
        let hits = windows.filter(move |window| {
            window
                .iter()
                .zip(pattern)
                .all(|(token, word)| token.text == *word)
        });
        hits.map(|window| window[0].line).collect()
    }
}

struct Scanner<'a> {
    rest: &'a str,
    line: usize,
    source: Source<'a>,
}

impl<'a> Scanner<'a> {
    fn step(&mut self) {
        let first = self.rest.chars().next().expect("there is something left");
        if self.rest.starts_with("//") {
            self.line_comment();
        } else if self.rest.starts_with("/*") {
            self.block_comment();
        } else if first == '"' {
            self.token(1);
            self.string();
        } else if first == '\'' {
            self.quote();
        } else if first.is_whitespace() {
            self.skip(first.len_utf8());
        } else if is_word(first) {
            self.word();
        } else {
            self.token(first.len_utf8());
        }
    }

    fn line_comment(&mut self) {
        let length = self.rest.find('\n').unwrap_or(self.rest.len());
        let doc = is_doc(&self.rest[..length], "///", "//!");
        let text = self.rest[..length].trim_start_matches(['/', '!']).trim();
        self.source.comments.push(Comment {
            text,
            line: self.line,
            doc,
        });
        self.skip(length);
    }

    /// Block comments nest.
    fn block_comment(&mut self) {
        let (mut depth, mut length) = (0, 0);
        while length < self.rest.len() {
            let here = &self.rest[length..];
            let (change, step) = match here {
                _ if here.starts_with("/*") => (1, 2),
                _ if here.starts_with("*/") => (-1, 2),
                _ => (0, here.chars().next().map_or(1, char::len_utf8)),
            };
            depth += change;
            length += step;
            if depth == 0 {
                break;
            }
        }
        let doc = is_doc(self.rest, "/**", "/*!");
        for (offset, text) in self.rest[..length].lines().enumerate() {
            let text = text.trim().trim_matches(['/', '*', '!']).trim();
            self.source.comments.push(Comment {
                text,
                line: self.line + offset,
                doc,
            });
        }
        self.skip(length);
    }

    /// A word, or the prefix of a literal with its literal.
    fn word(&mut self) {
        let length = self
            .rest
            .find(|sign| !is_word(sign))
            .unwrap_or(self.rest.len());
        let after = &self.rest[length..];
        let hashes = after.len() - after.trim_start_matches('#').len();
        match &self.rest[..length] {
            "r" | "br" | "cr" if after[hashes..].starts_with('"') => {
                self.token(length + hashes + 1);
                let close = format!("\"{}", "#".repeat(hashes));
                let end = self
                    .rest
                    .find(&close)
                    .map_or(self.rest.len(), |at| at + close.len());
                self.skip(end);
            }
            // A raw name: the word that counts follows.
            "r" if hashes == 1 => self.skip(length + 1),
            _ => self.token(length),
        }
    }

    /// The rest of a string after its opening quote, up to the closing one.
    fn string(&mut self) {
        let mut escaped = false;
        let end = self.rest.find(|sign| {
            let closes = sign == '"' && !escaped;
            escaped = sign == '\\' && !escaped;
            closes
        });
        self.skip(end.map_or(self.rest.len(), |at| at + 1));
    }

    /// A character or a lifetime: only a character has its closing quote two signs on, or a
    /// backslash.
    fn quote(&mut self) {
        let mut signs = self.rest[1..].chars();
        let (first, second) = (signs.next(), signs.next());
        if first == Some('\\') {
            let escaped = 1 + 1 + second.map_or(0, char::len_utf8);
            let end = self.rest[escaped..]
                .find('\'')
                .map_or(self.rest.len(), |at| escaped + at + 1);
            self.token(end);
        } else if second == Some('\'') {
            self.token(2 + first.map_or(0, char::len_utf8));
        } else {
            self.token(1);
        }
    }

    fn token(&mut self, length: usize) {
        self.source.tokens.push(Token {
            text: &self.rest[..length],
            line: self.line,
        });
        self.skip(length);
    }

    fn skip(&mut self, length: usize) {
        self.line += self.rest[..length].matches('\n').count();
        self.rest = &self.rest[length..];
    }
}

fn is_word(sign: char) -> bool {
    sign == '_' || sign.is_alphanumeric()
}

/// Three slashes document; four are a line across the page.
fn is_doc(comment: &str, outer: &str, inner: &str) -> bool {
    let rule = [outer, &outer[1..2]].concat();
    comment.starts_with(inner) || comment.starts_with(outer) && !comment.starts_with(&rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, tokens: &str) {
        let source = Source::scan(text);
        let found: Vec<&str> = source.tokens.iter().map(|token| token.text).collect();
        assert_eq!(found.join(" "), tokens);
    }

    #[test]
    fn comments_and_strings_hide_their_words() {
        check("a // unsafe\nb", "a b");
        check("a /* unsafe /* nested */ unsafe */ b", "a b");
        check(r#"a("unsafe \" unsafe") b"#, "a ( \" ) b");
        check("a(r#\"unsafe \" unsafe\"#) b", "a ( r#\" ) b");
        check("a(b\"unsafe\", c\"unsafe\") d", "a ( b \" , c \" ) d");
        check("a(\"two\\\\\") unsafe", "a ( \" ) unsafe");
    }

    #[test]
    fn characters_are_not_lifetimes() {
        check("'a' 'b", "'a' ' b");
        check(r"'\'' unsafe '\u{1f600}' x", r"'\'' unsafe '\u{1f600}' x");
        check("fn f<'a>(x: &'a str)", "fn f < ' a > ( x : & ' a str )");
        check("'\"' unsafe", "'\"' unsafe");
    }

    #[test]
    fn raw_names_are_names() {
        check("r#unsafe r", "unsafe r");
    }

    #[test]
    fn an_unfinished_literal_ends_with_the_file() {
        check("\"open", "\"");
        check("'\\", "'\\");
        check("r#\"open", "r#\"");
        check("/* open", "");
    }

    #[test]
    fn tokens_know_their_lines() {
        let source = Source::scan("a\n/* x\n y */ Instant::\nnow()\n\"s\n\" b");
        assert_eq!(source.find(&["Instant", ":", ":", "now"]), [3]);
        assert_eq!(source.tokens.last().map(|token| token.line), Some(6));
    }

    #[test]
    fn documentation_is_told_from_remarks() {
        let source =
            Source::scan("//! head\n/// item\n// remark\n//// rule\n/** block */\n/*** stars */");
        let doc: Vec<bool> = source.comments.iter().map(|comment| comment.doc).collect();
        assert_eq!(doc, [true, true, false, false, true, false]);
        assert_eq!(source.comments[2].text, "remark");
    }
}
