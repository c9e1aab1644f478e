//! JSON as it was written: duplicate keys and their order are kept.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

pub(super) enum Tree {
    Null,
    Flag(bool),
    Number(Number),
    Text(String),
    List(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

pub(super) struct SyntaxError {
    pub(super) line: usize,
    pub(super) column: usize,
    /// What stands there.
    pub(super) found: String,
    /// What the parser missed.
    pub(super) hint: String,
}

pub(super) fn parse(bytes: &[u8]) -> Result<Tree, SyntaxError> {
    serde_json::from_slice(bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let text = error.to_string();
        let said = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text);
        let (found, hint) = if bytes.iter().all(u8::is_ascii_whitespace) {
            ("nothing".to_owned(), "the file is empty".to_owned())
        } else if error.is_eof() {
            ("the end of the file".to_owned(), format!("{said}: is a closing bracket or quote missing?"))
        } else {
            (near(bytes, line, column), said.to_owned())
        };
        SyntaxError { line, column, found, hint }
    })
}

/// What stands at a line and column, both counted from 1, in bytes.
fn near(bytes: &[u8], line: usize, column: usize) -> String {
    let line = bytes.split(|b| *b == b'\n').nth(line.saturating_sub(1)).unwrap_or_default();
    let rest = line.get(column.saturating_sub(1)..).unwrap_or_default();
    let text: String = String::from_utf8_lossy(rest).trim_end().chars().take(30).collect();
    if text.is_empty() { "the end of the line".to_owned() } else { format!("{text:?}") }
}

impl Tree {
    /// What stands there, short enough for one line.
    pub(super) fn describe(&self) -> String {
        match self {
            Tree::Null => "null".to_owned(),
            Tree::Flag(flag) => flag.to_string(),
            Tree::Number(number) => number.to_string(),
            Tree::Text(text) if text.chars().count() > 60 => {
                format!("{:?} …", text.chars().take(60).collect::<String>())
            }
            Tree::Text(text) => format!("{text:?}"),
            Tree::List(items) => format!("a list of {}", items.len()),
            Tree::Object(entries) => match entries.as_slice() {
                [] => "an empty object".to_owned(),
                [(key, _), ..] => format!("an object ({key:?}, …)"),
            },
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Tree, E> {
        Ok(Tree::Flag(flag))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Tree, E> {
        Ok(Tree::Number(number.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Tree, E> {
        Ok(Tree::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Tree, E> {
        Ok(Number::from_f64(number).map_or(Tree::Null, Tree::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut object = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            object.push(entry);
        }
        Ok(Tree::Object(object))
    }
}
