//! `size`, and the limits it stands for.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One mebibyte.
pub const MIB: u64 = 1 << 20;
/// One gibibyte.
pub const GIB: u64 = 1 << 30;
/// The least memory an instance gets: below it mysqld is killed under a plain load.
pub const MIN_MEMORY: u64 = 512 * MIB;
/// What a server needs beside its buffer pool (measured: some 600 MiB).
pub const BESIDE_POOL: u64 = 640 * MIB;
/// The least buffer pool.
pub const MIN_POOL: u64 = 64 * MIB;

/// The unit of a buffer pool up to 16 GiB: the server's own 128 MiB would round 288 MiB up to 384.
pub const POOL_CHUNK: u64 = 32 * MIB;

/// The share of the host, or the resources, that an instance gets.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Size {
    /// All that the agent offers.
    #[default]
    All,
    /// One half of it.
    Half,
    /// One quarter.
    Quarter,
    /// One eighth.
    Eighth,
    /// 1 GiB and half a core.
    Small,
    /// Exactly this much.
    Exact(ExactSize),
}

/// Resources named one by one.
#[derive(Debug, Clone, PartialEq)]
pub struct ExactSize {
    /// Bytes of memory.
    pub memory: u64,
    /// Cores; all that the agent offers when left out.
    pub cpus: Option<f64>,
    /// Bytes of disk; used in placement only.
    pub disk: Option<u64>,
}

/// What a host has to offer, or what an instance gets of it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Resources {
    /// Bytes.
    pub memory: u64,
    /// Cores.
    pub cpus: f64,
    /// Bytes; `null` where no limit is named.
    pub disk: Option<u64>,
}

impl Size {
    /// The limits that this size stands for on a host that offers `offered`.
    pub fn limits(&self, offered: &Resources) -> Resources {
        let share = |parts: u64| Resources {
            memory: offered.memory / parts,
            cpus: offered.cpus / parts as f64,
            disk: None,
        };
        match self {
            Size::All => share(1),
            Size::Half => share(2),
            Size::Quarter => share(4),
            Size::Eighth => share(8),
            Size::Small => Resources { memory: GIB, cpus: 0.5, disk: None },
            Size::Exact(exact) => {
                Resources { memory: exact.memory, cpus: exact.cpus.unwrap_or(offered.cpus), disk: exact.disk }
            }
        }
    }
}

/// What an agent offers to instances, of a machine with this memory: the larger of 512 MiB and 10 % is kept back.
pub fn offered_memory(machine: u64) -> u64 {
    machine.saturating_sub((512 * MIB).max(machine / 10))
}

/// `innodb_buffer_pool_size` for an instance with this memory limit: 75 % of what is left beside 640 MiB.
/// In whole [`POOL_CHUNK`]s, so that the server rounds little.
pub fn buffer_pool(memory: u64) -> u64 {
    let pool = memory.saturating_sub(BESIDE_POOL) / 4 * 3;
    (pool / POOL_CHUNK * POOL_CHUNK).max(MIN_POOL)
}

/// Reads `4GiB`, `512MiB`, `100 GB` or a number of bytes.
///
/// # Errors
/// A sentence that names the accepted forms.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => MIB,
        "g" | "gib" => GIB,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => {
            return Err(format!("{text:?} is no amount of bytes (for example \"4GiB\", \"512MiB\")"));
        }
    };
    let number: f64 = number
        .parse()
        .map_err(|_| format!("{text:?} is no amount of bytes (for example \"4GiB\", \"512MiB\")"))?;
    let bytes = number * factor as f64;
    if bytes >= 1.0 && bytes < (1u64 << 60) as f64 {
        Ok(bytes as u64)
    } else {
        Err(format!("{text:?} is not a usable amount of bytes"))
    }
}

/// Writes bytes the way people read them: the largest binary unit that leaves few digits.
pub fn format_bytes(bytes: u64) -> String {
    for (unit, name) in [(1u64 << 40, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit {
            let value = bytes as f64 / unit as f64;
            return if bytes.is_multiple_of(unit) {
                format!("{}{name}", bytes / unit)
            } else {
                format!("{value:.1}{name}")
            };
        }
    }
    format!("{bytes}B")
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Size::All => f.pad("all"),
            Size::Half => f.pad("half"),
            Size::Quarter => f.pad("quarter"),
            Size::Eighth => f.pad("eighth"),
            Size::Small => f.pad("small"),
            Size::Exact(exact) => f.pad(&format_bytes(exact.memory)),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExactText {
    memory: BytesText,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cpus: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    disk: Option<BytesText>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum BytesText {
    Number(u64),
    Text(String),
}

impl BytesText {
    fn bytes(&self) -> Result<u64, String> {
        match self {
            BytesText::Number(bytes) => Ok(*bytes),
            BytesText::Text(text) => parse_bytes(text),
        }
    }

    fn write(bytes: u64) -> Self {
        for (unit, name) in [(GIB, "GiB"), (MIB, "MiB")] {
            if bytes >= unit && bytes.is_multiple_of(unit) {
                return BytesText::Text(format!("{}{name}", bytes / unit));
            }
        }
        BytesText::Number(bytes)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum SizeText {
    Word(String),
    Exact(ExactText),
}

/// The words that `size` may be.
pub const SIZE_WORDS: [&str; 5] = ["all", "half", "quarter", "eighth", "small"];

impl std::str::FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "all" => Size::All,
            "half" => Size::Half,
            "quarter" => Size::Quarter,
            "eighth" => Size::Eighth,
            "small" => Size::Small,
            _ => {
                return Err(format!(
                    "{text:?} is no size; expected {} or {{\"memory\": \"4GiB\", \"cpus\": 2, \"disk\": \"100GiB\"}}",
                    SIZE_WORDS.join(", ")
                ));
            }
        })
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match SizeText::deserialize(deserializer).map_err(|_| {
            D::Error::custom(format!(
                "no size; expected {} or {{\"memory\": \"4GiB\", \"cpus\": 2, \"disk\": \"100GiB\"}}",
                SIZE_WORDS.join(", ")
            ))
        })? {
            SizeText::Word(word) => word.parse().map_err(D::Error::custom),
            SizeText::Exact(exact) => {
                if exact.cpus.is_some_and(|cpus| !(cpus > 0.0 && cpus.is_finite())) {
                    return Err(D::Error::custom("size.cpus must be a number above 0"));
                }
                Ok(Size::Exact(ExactSize {
                    memory: exact.memory.bytes().map_err(D::Error::custom)?,
                    cpus: exact.cpus,
                    disk: exact.disk.map(|d| d.bytes()).transpose().map_err(D::Error::custom)?,
                }))
            }
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Size::Exact(exact) => ExactText {
                memory: BytesText::write(exact.memory),
                cpus: exact.cpus,
                disk: exact.disk.map(BytesText::write),
            }
            .serialize(serializer),
            word => serializer.collect_str(word),
        }
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let bytes = serde_json::json!({
            "oneOf": [
                {"type": "integer", "minimum": 1},
                {"type": "string", "pattern": "^[0-9.]+ *[KMGTkmgt]?[iI]?[bB]?$"}
            ]
        });
        json_schema!({
            "oneOf": [
                {"type": "string", "enum": SIZE_WORDS},
                {
                    "type": "object",
                    "additionalProperties": false,
                    "required": ["memory"],
                    "properties": {
                        "memory": bytes, "cpus": {"type": "number", "exclusiveMinimum": 0}, "disk": bytes
                    }
                }
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_exact_sizes_read_and_write_back() {
        for text in [r#""all""#, r#""eighth""#, r#"{"memory":"4GiB","cpus":2.0,"disk":"100GiB"}"#] {
            let size: Size = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&size).unwrap(), text);
        }
        assert!(serde_json::from_str::<Size>(r#""huge""#).is_err());
        assert!(serde_json::from_str::<Size>(r#"{"memory":"4GiB","disc":"1GiB"}"#).is_err());
        assert!(serde_json::from_str::<Size>(r#"{"memory":"4GiB","cpus":0}"#).is_err());
    }

    #[test]
    fn shares_and_pools_follow_the_rules() {
        let offered = Resources { memory: 8 * GIB, cpus: 4.0, disk: None };
        assert_eq!(Size::Quarter.limits(&offered).memory, 2 * GIB);
        assert_eq!(Size::Small.limits(&offered), Resources { memory: GIB, cpus: 0.5, disk: None });
        assert_eq!(offered_memory(GIB), 512 * MIB);
        assert_eq!(offered_memory(100 * GIB), 90 * GIB);
        assert_eq!(buffer_pool(512 * MIB), 64 * MIB);
        assert_eq!(buffer_pool(GIB), 288 * MIB);
    }

    #[test]
    fn amounts_of_bytes() {
        assert_eq!(parse_bytes("4GiB"), Ok(4 * GIB));
        assert_eq!(parse_bytes("1.5g"), Ok(3 * GIB / 2));
        assert_eq!(parse_bytes("512"), Ok(512));
        for bad in ["", "GiB", "4 potatoes", "0", "-1", "1e40"] {
            assert!(parse_bytes(bad).is_err(), "{bad:?}");
        }
        assert_eq!(format_bytes(4 * GIB), "4GiB");
        assert_eq!(format_bytes(GIB + GIB / 2), "1.5GiB");
    }
}
