//! Cuts a stream of lines into statements, as the `mysql` client does: at `;`, `\g`, `\G` or what `DELIMITER` names,
//! outside of quotes and comments.

/// One statement, without its delimiter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    /// Its text; dumps may hold any bytes.
    pub(super) text: Vec<u8>,
    /// It ended in `\G`: each column is to have a line of its own.
    pub(super) vertical: bool,
}

/// What the cutter is inside of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    Nothing,
    Quote(u8),
    Comment,
}

/// The cutter.
#[derive(Debug)]
pub(super) struct Splitter {
    text: Vec<u8>,
    inside: Inside,
    delimiter: Vec<u8>,
}

impl Default for Splitter {
    fn default() -> Self {
        Self { text: Vec::new(), inside: Inside::Nothing, delimiter: b";".to_vec() }
    }
}

impl Splitter {
    /// Whether a statement has begun.
    pub(super) fn is_open(&self) -> bool {
        self.inside != Inside::Nothing || !is_blank(&self.text)
    }

    /// Forgets the statement that has begun.
    pub(super) fn reset(&mut self) {
        self.text.clear();
        self.inside = Inside::Nothing;
    }

    /// Takes a line (with its line feed, if it has one) and gives the statements that it completes.
    pub(super) fn feed(&mut self, line: &[u8]) -> Vec<Statement> {
        if !self.is_open()
            && let Some(delimiter) = delimiter_command(line)
        {
            self.delimiter = delimiter;
            self.text.clear();
            return Vec::new();
        }
        let mut done = Vec::new();
        let mut rest = line;
        while let Some(byte) = rest.first().copied() {
            let taken = match self.inside {
                Inside::Quote(quote) => {
                    if byte == quote {
                        self.inside = Inside::Nothing;
                    }
                    if byte == b'\\' && quote != b'`' { rest.len().min(2) } else { 1 }
                }
                Inside::Comment if rest.starts_with(b"*/") => {
                    self.inside = Inside::Nothing;
                    2
                }
                Inside::Comment => 1,
                Inside::Nothing => {
                    if let Some(length) = end(rest, &self.delimiter) {
                        done.extend(self.take(rest.starts_with(b"\\G")));
                        rest = &rest[length..];
                        continue;
                    }
                    if starts_line_comment(rest) {
                        rest.len()
                    } else if rest.starts_with(b"/*") {
                        self.inside = Inside::Comment;
                        2
                    } else {
                        if matches!(byte, b'\'' | b'"' | b'`') {
                            self.inside = Inside::Quote(byte);
                        }
                        1
                    }
                }
            };
            self.text.extend_from_slice(&rest[..taken]);
            rest = &rest[taken..];
        }
        if is_blank(&self.text) && self.inside == Inside::Nothing {
            self.text.clear();
        }
        done
    }

    /// What is left at the end of the stream.
    pub(super) fn finish(&mut self) -> Option<Statement> {
        self.take(false)
    }

    fn take(&mut self, vertical: bool) -> Option<Statement> {
        let text = std::mem::take(&mut self.text);
        self.inside = Inside::Nothing;
        (!is_blank(&text)).then(|| Statement { text: text.trim_ascii().to_vec(), vertical })
    }
}

/// Whether there is nothing for the server in it.
fn is_blank(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n')
        .all(|line| line.trim_ascii().is_empty() || starts_line_comment(line.trim_ascii()))
}

/// How long the mark is that ends a statement here, if one does.
fn end(rest: &[u8], delimiter: &[u8]) -> Option<usize> {
    if rest.starts_with(delimiter) {
        return Some(delimiter.len());
    }
    (rest.starts_with(b"\\G") || rest.starts_with(b"\\g")).then_some(2)
}

fn starts_line_comment(rest: &[u8]) -> bool {
    rest.starts_with(b"#")
        || (rest.starts_with(b"--") && rest.get(2).is_none_or(|byte| byte.is_ascii_whitespace()))
}

fn delimiter_command(line: &[u8]) -> Option<Vec<u8>> {
    let line = line.trim_ascii();
    let (word, rest) = line.split_at_checked(b"delimiter".len())?;
    let delimiter = rest.trim_ascii();
    let named = word.eq_ignore_ascii_case(b"delimiter") && rest.first().is_some_and(u8::is_ascii_whitespace);
    (named && !delimiter.is_empty()).then(|| delimiter.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<String> {
        let mut splitter = Splitter::default();
        let mut all: Vec<Statement> =
            text.split_inclusive('\n').flat_map(|line| splitter.feed(line.as_bytes())).collect();
        all.extend(splitter.finish());
        all.into_iter().map(|one| String::from_utf8(one.text).unwrap()).collect()
    }

    #[test]
    fn statements_end_at_delimiters_outside_of_quotes_and_comments() {
        assert_eq!(split("SELECT 1; SELECT 2"), ["SELECT 1", "SELECT 2"]);
        assert_eq!(split("SELECT ';', \"a;\", `b;` ;\n"), ["SELECT ';', \"a;\", `b;`"]);
        assert_eq!(split("SELECT 'it\\'s;'; SELECT 'a''b;'"), ["SELECT 'it\\'s;'", "SELECT 'a''b;'"]);
        // A comment before a statement is not sent.
        assert_eq!(split("-- a; b\nSELECT 1 # c; d\n;"), ["SELECT 1 # c; d"]);
        assert_eq!(split("SELECT /* ; \n ; */ 1;"), ["SELECT /* ; \n ; */ 1"]);
        assert_eq!(split(";;\n ; # nothing\n-- at all\n"), Vec::<String>::new());
        assert_eq!(split("SELECT 1--2;"), ["SELECT 1--2"]);
    }

    #[test]
    fn a_delimiter_can_be_named() {
        let text =
            "DELIMITER //\nCREATE PROCEDURE p() BEGIN SELECT 1; SELECT 2; END//\ndelimiter ;\nSELECT 3;";
        assert_eq!(split(text), ["CREATE PROCEDURE p() BEGIN SELECT 1; SELECT 2; END", "SELECT 3"]);
    }

    #[test]
    fn a_capital_g_asks_for_lines() {
        let mut splitter = Splitter::default();
        let all = splitter.feed(b"SHOW REPLICA STATUS\\G\n");
        assert_eq!(all, [Statement { text: b"SHOW REPLICA STATUS".to_vec(), vertical: true }]);
        assert!(!splitter.is_open());
        splitter.feed(b"SELECT 'a\n");
        assert!(splitter.is_open());
    }
}
