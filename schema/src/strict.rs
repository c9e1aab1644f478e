//! Reading what people write: strict, with all refusals of a file at once.
//!
//! *Guarantees*: nothing is guessed and nothing is dropped. What this reads, [`Target`] holds whole; what it does not
//! know, it refuses with file, JSON path, what was found and what was expected.

mod json;
mod policy;

use std::collections::BTreeMap;

use crate::refusal::Refusal;
use crate::size::{ExactSize, MIN_MEMORY, SIZE_WORDS, Size, format_bytes, parse_bytes};
use crate::target::{Promotion, Role, Target, VariableValue};
use crate::variables::owned_reason;
use crate::{InstanceName, names};

use json::Tree;
pub use policy::{Setting, read_setting};

/// The fields of a document, as `data` may hold them.
pub const FIELDS: [&str; 13] = [
    "role",
    "port",
    "master_host",
    "master_port",
    "disabled",
    "size",
    "host",
    "cluster",
    "image",
    "mysql",
    "promotion",
    "maintenance",
    "schemas",
];

/// Reads a file of target states.
///
/// # Errors
/// Every refusal of the file, in the order of the file.
pub fn read_file(file_name: &str, bytes: &[u8]) -> Result<Vec<(InstanceName, Target)>, Vec<Refusal>> {
    let mut reader = Reader { file: file_name, refusals: Vec::new() };
    let found = reader.file(bytes);
    if reader.refusals.is_empty() { Ok(found) } else { Err(reader.refusals) }
}

/// The known word nearest to what was written, as a hint.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let written = written.to_ascii_lowercase();
    let best = known.into_iter().map(|word| (strsim::jaro_winkler(&written, word), word));
    let (score, word) = best.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (score >= 0.8).then(|| format!("did you mean {word:?}?"))
}

struct Reader<'a> {
    file: &'a str,
    refusals: Vec<Refusal>,
}

impl Reader<'_> {
    fn refuse(
        &mut self,
        path: &str,
        found: impl Into<String>,
        expected: impl Into<String>,
        hint: Option<String>,
    ) {
        let found = found.into();
        let hint = hint.or_else(|| (found == "null").then(|| "leave the field out".to_owned()));
        self.refusals.push(Refusal {
            file: Some(self.file.to_owned()),
            path: (!path.is_empty()).then(|| path.to_owned()),
            found,
            expected: expected.into(),
            hint,
        });
    }

    fn file(&mut self, bytes: &[u8]) -> Vec<(InstanceName, Target)> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let tree = match json::parse(bytes) {
            Ok(tree) => tree,
            Err(error) => {
                let at = format!("line {}, column {}", error.line, error.column);
                self.refuse(&at, error.found, "well-formed JSON", Some(error.hint));
                return Vec::new();
            }
        };
        let Tree::Object(entries) = &tree else {
            self.refuse("", tree.describe(), "a map from instance name to {\"data\": {…}}", None);
            return Vec::new();
        };
        self.duplicates("", entries);
        let mut found = Vec::new();
        for (key, value) in entries {
            // Editors put it there to find the JSON Schema.
            if key == "$schema" && matches!(value, Tree::Text(_)) {
                continue;
            }
            let name = self.instance_name(key);
            let target = self.document(key, value);
            if let (Some(name), Some(target)) = (name, target) {
                self.parts(&name, &target);
                found.push((name, target));
            }
        }
        found
    }

    fn duplicates(&mut self, path: &str, entries: &[(String, Tree)]) {
        let mut seen: BTreeMap<&str, &Tree> = BTreeMap::new();
        for (key, value) in entries {
            if let Some(first) = seen.insert(key, value) {
                let found = format!("{key:?} twice ({}, then {})", first.describe(), value.describe());
                self.refuse(
                    &join(path, key),
                    found,
                    "each name once",
                    Some("one of the two would be lost".to_owned()),
                );
            }
        }
    }

    fn instance_name(&mut self, key: &str) -> Option<InstanceName> {
        match key.parse() {
            Ok(name) => Some(name),
            Err(why) => {
                let lower = key.trim().to_ascii_lowercase().replace(['_', ' ', '.'], "-");
                let hint = match lower.parse::<InstanceName>() {
                    Ok(near) if near.as_str() != key => format!("{why}; for example {near}"),
                    _ => format!("{why}"),
                };
                self.refuse(key, format!("{key:?}"), "a name <host>-<cluster>-<member>", Some(hint));
                None
            }
        }
    }

    /// A name that no set of registered hosts can make readable needs both fields.
    fn parts(&mut self, name: &InstanceName, target: &Target) {
        if target.host.is_some() && target.cluster.is_some() {
            return;
        }
        if names::read_name(name, &target.host.iter().cloned().collect()).is_err() {
            let hint = "give \"host\" and \"cluster\" in its data, or rename it".to_owned();
            self.refuse(name.as_str(), format!("{name:?}"), "a name <host>-<cluster>-<member>", Some(hint));
        }
    }

    fn document(&mut self, path: &str, tree: &Tree) -> Option<Target> {
        let Tree::Object(entries) = tree else {
            self.refuse(path, tree.describe(), "{\"data\": {…}}", None);
            return None;
        };
        self.duplicates(path, entries);
        let mut data = None;
        for (key, value) in entries {
            if key == "data" {
                data = Some(value);
            } else {
                let hint = match FIELDS.contains(&key.as_str()) {
                    true => Some(format!("{key:?} belongs inside \"data\"")),
                    false => nearest(key, ["data"]),
                };
                self.refuse(&join(path, key), format!("an unknown field {key:?}"), "\"data\" only", hint);
            }
        }
        let Some(data) = data else {
            self.refuse(path, "no \"data\"", "{\"data\": {…}}", None);
            return None;
        };
        self.target(&join(path, "data"), data)
    }

    fn target(&mut self, path: &str, tree: &Tree) -> Option<Target> {
        let Tree::Object(entries) = tree else {
            self.refuse(path, tree.describe(), "an object with role, port and so on", None);
            return None;
        };
        let before = self.refusals.len();
        self.duplicates(path, entries);
        let (mut role, mut port) = (None, None);
        let mut target = empty();
        for (key, value) in entries {
            let at = join(path, key);
            match key.as_str() {
                "role" => role = self.role(&at, value),
                "port" => port = self.port(&at, value),
                "master_host" => target.master_host = self.name(&at, value, "the name of a host"),
                "master_port" => target.master_port = self.port(&at, value),
                "disabled" => target.disabled = self.flag(&at, value).unwrap_or_default(),
                "maintenance" => target.maintenance = self.flag(&at, value).unwrap_or_default(),
                "size" => target.size = self.size(&at, value).unwrap_or_default(),
                "host" => target.host = self.name(&at, value, "the name of a host"),
                "cluster" => target.cluster = self.name(&at, value, "the name of a cluster"),
                "image" => target.image = self.image(&at, value),
                "mysql" => target.mysql = self.variables(&at, value),
                "promotion" => target.promotion = self.promotion(&at, value).unwrap_or_default(),
                "schemas" => target.schemas = self.schemas(&at, value),
                _ => {
                    let expected = format!("one of {}", FIELDS.join(", "));
                    self.refuse(&at, format!("an unknown field {key:?}"), expected, nearest(key, FIELDS));
                }
            }
        }
        let has = |field: &str| entries.iter().any(|(key, _)| key == field);
        for field in ["role", "port"] {
            if !has(field) {
                self.refuse(&join(path, field), "nothing", format!("{field:?} in every document"), None);
            }
        }
        let needs_master = role == Some(Role::Minion);
        for (field, other) in [("master_host", "master_port"), ("master_port", "master_host")] {
            if has(field) {
                continue;
            }
            let at = join(path, field);
            if needs_master {
                self.refuse(&at, "nothing", format!("{field:?}: a minion names the server it follows"), None);
            } else if has(other) && role == Some(Role::Master) {
                self.refuse(&at, "nothing", format!("{field:?} beside {other:?}, or neither"), None);
            }
        }
        if target.schemas.is_some() && needs_master {
            let hint = "they say what a new master takes with it at the cut".to_owned();
            self.refuse(
                &join(path, "schemas"),
                "schemas of a minion",
                "\"schemas\" beside role \"master\" only",
                Some(hint),
            );
        }
        if self.refusals.len() > before {
            return None;
        }
        target.role = role?;
        target.port = port?;
        Some(target)
    }

    fn role(&mut self, path: &str, tree: &Tree) -> Option<Role> {
        let hint = match tree {
            Tree::Text(word) => match word.as_str() {
                "master" => return Some(Role::Master),
                "minion" => return Some(Role::Minion),
                "replica" | "slave" | "secondary" | "follower" => Some("did you mean \"minion\"?".to_owned()),
                "source" | "primary" | "leader" => Some("did you mean \"master\"?".to_owned()),
                word => nearest(word, ["master", "minion"]),
            },
            _ => None,
        };
        self.refuse(path, tree.describe(), "\"master\" or \"minion\"", hint);
        None
    }

    fn promotion(&mut self, path: &str, tree: &Tree) -> Option<Promotion> {
        let mut hint = None;
        if let Tree::Text(word) = tree {
            match word.as_str() {
                "prefer" => return Some(Promotion::Prefer),
                "neutral" => return Some(Promotion::Neutral),
                "never" => return Some(Promotion::Never),
                word => hint = nearest(word, ["prefer", "neutral", "never"]),
            }
        }
        self.refuse(path, tree.describe(), "\"prefer\", \"neutral\" or \"never\"", hint);
        None
    }

    fn port(&mut self, path: &str, tree: &Tree) -> Option<u16> {
        let number = match tree {
            Tree::Number(number) => number.as_u64(),
            _ => None,
        };
        if let Some(port) = number.and_then(|number| u16::try_from(number).ok()).filter(|port| *port > 0) {
            return Some(port);
        }
        let quoted = matches!(tree, Tree::Text(text) if text.parse::<u16>().is_ok_and(|port| port > 0));
        let hint = quoted.then(|| "write it without quotes".to_owned());
        self.refuse(path, tree.describe(), "a whole number from 1 to 65535", hint);
        None
    }

    fn flag(&mut self, path: &str, tree: &Tree) -> Option<bool> {
        if let Tree::Flag(flag) = tree {
            return Some(*flag);
        }
        let quoted = matches!(tree, Tree::Text(text) if text == "true" || text == "false");
        self.refuse(
            path,
            tree.describe(),
            "true or false",
            quoted.then(|| "write it without quotes".to_owned()),
        );
        None
    }

    fn name<N>(&mut self, path: &str, tree: &Tree, expected: &str) -> Option<N>
    where
        N: std::str::FromStr<Err = names::NameError>,
    {
        let hint = match tree {
            Tree::Text(text) => match text.parse() {
                Ok(name) => return Some(name),
                Err(why) => Some(why.to_string()),
            },
            _ => None,
        };
        self.refuse(path, tree.describe(), expected, hint);
        None
    }

    fn image(&mut self, path: &str, tree: &Tree) -> Option<String> {
        match tree {
            Tree::Text(text) if !text.is_empty() && !text.contains(char::is_whitespace) => Some(text.clone()),
            _ => {
                self.refuse(path, tree.describe(), "the name of an image, for example \"mysql:8.4\"", None);
                None
            }
        }
    }

    fn schemas(&mut self, path: &str, tree: &Tree) -> Option<Vec<String>> {
        if let Tree::List(items) = tree {
            let names: Option<Vec<String>> = items
                .iter()
                .map(|item| match item {
                    Tree::Text(text) if !text.is_empty() => Some(text.clone()),
                    _ => None,
                })
                .collect();
            if let Some(names) = names.filter(|names| !names.is_empty()) {
                return Some(names);
            }
        }
        self.refuse(path, tree.describe(), "a list of schema names", None);
        None
    }

    fn size(&mut self, path: &str, tree: &Tree) -> Option<Size> {
        let expected = || {
            let words: Vec<String> = SIZE_WORDS.iter().map(|word| format!("{word:?}")).collect();
            format!("{} or {{\"memory\": \"4GiB\", \"cpus\": 2, \"disk\": \"100GiB\"}}", words.join(", "))
        };
        match tree {
            Tree::Text(word) => match word.parse() {
                Ok(size) => Some(size),
                Err(_) => {
                    let hint = match parse_bytes(word) {
                        Ok(_) => Some(format!("did you mean {{\"memory\": {word:?}}}?")),
                        Err(_) => nearest(word, SIZE_WORDS),
                    };
                    self.refuse(path, tree.describe(), expected(), hint);
                    None
                }
            },
            Tree::Object(entries) => self.exact_size(path, entries),
            _ => {
                self.refuse(path, tree.describe(), expected(), None);
                None
            }
        }
    }

    fn exact_size(&mut self, path: &str, entries: &[(String, Tree)]) -> Option<Size> {
        let before = self.refusals.len();
        self.duplicates(path, entries);
        let (mut memory, mut cpus, mut disk) = (None, None, None);
        for (key, value) in entries {
            let at = join(path, key);
            match key.as_str() {
                "memory" => memory = self.bytes(&at, value),
                "disk" => disk = self.bytes(&at, value),
                "cpus" => match value {
                    Tree::Number(number) if number.as_f64().is_some_and(|n| n > 0.0 && n.is_finite()) => {
                        cpus = number.as_f64();
                    }
                    _ => self.refuse(&at, value.describe(), "a number of cores above 0", None),
                },
                _ => {
                    let hint = nearest(key, ["memory", "cpus", "disk"]);
                    self.refuse(&at, format!("an unknown field {key:?}"), "one of memory, cpus, disk", hint);
                }
            }
        }
        if !entries.iter().any(|(key, _)| key == "memory") {
            self.refuse(&join(path, "memory"), "nothing", "\"memory\", for example \"4GiB\"", None);
        }
        if let Some(memory) = memory.filter(|memory| *memory < MIN_MEMORY) {
            let hint = "below it mysqld is killed under a plain load".to_owned();
            let expected = format!("at least {}", format_bytes(MIN_MEMORY));
            self.refuse(&join(path, "memory"), format_bytes(memory), expected, Some(hint));
        }
        if self.refusals.len() > before {
            return None;
        }
        Some(Size::Exact(ExactSize { memory: memory?, cpus, disk }))
    }

    fn bytes(&mut self, path: &str, tree: &Tree) -> Option<u64> {
        let read = match tree {
            Tree::Number(number) => number.as_u64().filter(|bytes| *bytes > 0),
            Tree::Text(text) => parse_bytes(text).ok(),
            _ => None,
        };
        if read.is_none() {
            self.refuse(
                path,
                tree.describe(),
                "an amount of bytes, for example \"4GiB\" or 4294967296",
                None,
            );
        }
        read
    }

    fn variables(&mut self, path: &str, tree: &Tree) -> BTreeMap<String, VariableValue> {
        let mut read = BTreeMap::new();
        let Tree::Object(entries) = tree else {
            let expected = "a map of server variables, for example {\"max_connections\": 500}";
            self.refuse(path, tree.describe(), expected, None);
            return read;
        };
        self.duplicates(path, entries);
        for (key, value) in entries {
            let at = join(path, key);
            if let Some(why) = variable_name(key) {
                self.refuse(&at, format!("{key:?}"), why.0, why.1);
                continue;
            }
            match variable_value(value) {
                Some(value) => drop(read.insert(key.clone(), value)),
                None => self.refuse(&at, value.describe(), "text, a number, true or false", None),
            }
        }
        let mut spellings: BTreeMap<String, &str> = BTreeMap::new();
        for key in read.keys() {
            if let Some(first) = spellings.insert(crate::variables::normalise(key), key) {
                self.refuse(&join(path, key), format!("{first:?} and {key:?}"), "each variable once", None);
            }
        }
        read
    }
}

/// Why a variable cannot be given, and a hint.
fn variable_name(name: &str) -> Option<(String, Option<String>)> {
    let plain = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if !plain {
        return Some(("the name of a server variable".to_owned(), None));
    }
    owned_reason(name)
        .map(|reason| ("a variable that Schemadock does not own".to_owned(), Some(reason.to_owned())))
}

fn variable_value(tree: &Tree) -> Option<VariableValue> {
    Some(match tree {
        Tree::Flag(flag) => VariableValue::Flag(*flag),
        Tree::Number(number) => match number.as_i64() {
            Some(whole) => VariableValue::Integer(whole),
            // Above i64: MySQL has unsigned variables; as text it keeps every digit.
            None if number.is_u64() => VariableValue::Text(number.to_string()),
            None => VariableValue::Real(number.as_f64()?),
        },
        // A line break would let a value write further lines into the server's file.
        Tree::Text(text) if !text.contains(['\n', '\r', '\0']) => VariableValue::Text(text.clone()),
        _ => return None,
    })
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn empty() -> Target {
    Target {
        role: Role::Master,
        port: 0,
        master_host: None,
        master_port: None,
        disabled: false,
        size: Size::All,
        host: None,
        cluster: None,
        image: None,
        mysql: BTreeMap::new(),
        promotion: Promotion::Neutral,
        maintenance: false,
        schemas: None,
    }
}

#[cfg(test)]
mod tests;
