//! The document people edit: the target state of one instance.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::size::Size;
use crate::{ClusterName, HostName, InstanceName};

/// A file as people write it: a map from instance name to its document.
pub type TargetFile = BTreeMap<InstanceName, Document>;

/// The envelope of the original format: `{"data": {…}}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// The target state.
    pub data: Target,
}

/// What one instance is to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields, extend(
    "if" = serde_json::json!({"properties": {"role": {"const": "minion"}}}),
    "then" = serde_json::json!({"required": ["master_host", "master_port"]})
))]
pub struct Target {
    /// `master` founds the cluster or leads it; `minion` follows.
    pub role: Role,
    /// The port that the server listens on, 1 to 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// The registered host whose server it follows. Required for a minion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master_host: Option<HostName>,
    /// The port of that server. Required for a minion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub master_port: Option<u16>,
    /// Stops the server and keeps everything.
    #[serde(default)]
    pub disabled: bool,
    /// The share of the host, or the resources, that it gets.
    #[serde(default)]
    pub size: Size,
    /// The host; read from the name when the file leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName>,
    /// The cluster; read from the name when the file leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterName>,
    /// The image to run; the policy's or the agent's default when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Server variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mysql: BTreeMap<String, VariableValue>,
    /// Whether it is wished for as master.
    #[serde(default, skip_serializing_if = "Promotion::is_neutral")]
    pub promotion: Promotion,
    /// While true nothing is started, mended, seeded, restarted, re-pointed or opened.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub maintenance: bool,
    /// For a `master` with `master_host`: the schemas it takes with it at the cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schemas: Option<Vec<String>>,
}

/// The part an instance plays, in the words of the original system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Takes writes.
    Master,
    /// Follows.
    Minion,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Master => "master",
            Role::Minion => "minion",
        })
    }
}

/// Whether an instance is wished for as master.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Promotion {
    /// Before others.
    Prefer,
    /// As good as others.
    #[default]
    Neutral,
    /// Not at all.
    Never,
}

impl Promotion {
    fn is_neutral(&self) -> bool {
        *self == Promotion::Neutral
    }
}

/// A server variable's value as people write it: text, a number, or true and false.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum VariableValue {
    /// `ON` or `OFF`.
    Flag(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Real(f64),
    /// Text, also of numbers with a unit (`1G`).
    Text(String),
}

impl fmt::Display for VariableValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VariableValue::Flag(true) => f.write_str("ON"),
            VariableValue::Flag(false) => f.write_str("OFF"),
            VariableValue::Integer(value) => write!(f, "{value}"),
            VariableValue::Real(value) => write!(f, "{value}"),
            VariableValue::Text(value) => f.write_str(value),
        }
    }
}

/// The JSON Schema of a file as people write it; `target.schema.json` holds it for editors.
pub fn file_schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(TargetFile);
    schema.insert("title".to_owned(), "Target states of Schemadock instances".into());
    // Editors put it there to find this schema.
    schema.insert("properties".to_owned(), serde_json::json!({"$schema": {"type": "string"}}));
    let mut schema = schema.to_value();
    // A field that may be missing is left out, never null.
    if let Some(fields) = schema.pointer_mut("/$defs/Target/properties").and_then(|f| f.as_object_mut()) {
        fields.values_mut().filter_map(|field| field.as_object_mut()).for_each(without_null);
    }
    schema
}

fn without_null(field: &mut serde_json::Map<String, serde_json::Value>) {
    if let Some(serde_json::Value::Array(types)) = field.get("type") {
        let only = types.first().cloned().unwrap_or_default();
        field.insert("type".to_owned(), only);
    }
    if let Some(serde_json::Value::Array(choices)) = field.remove("anyOf") {
        let only = choices.into_iter().next();
        field.extend(only.and_then(|only| only.as_object().cloned()).unwrap_or_default());
    }
}

impl Target {
    /// The server it is told to follow, if any.
    pub fn source(&self) -> Option<(&HostName, u16)> {
        Some((self.master_host.as_ref()?, self.master_port?))
    }

    /// Reads a target from etcd: unknown fields are ignored, what cannot be read is an error for people.
    ///
    /// # Errors
    /// The reason, with line and column where it is a matter of syntax.
    pub fn read_leniently(bytes: &[u8]) -> Result<Target, String> {
        #[derive(Deserialize)]
        struct Envelope {
            data: Target,
        }
        let target = serde_json::from_slice::<Envelope>(bytes).map_err(|e| e.to_string())?.data;
        if target.port == 0 {
            return Err("port is 0, expected 1 to 65535".to_owned());
        }
        if target.role == Role::Minion && target.source().is_none() {
            return Err("a minion without master_host and master_port".to_owned());
        }
        Ok(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_schema_in_the_repository_is_the_one_of_the_types() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/target.schema.json");
        let text = serde_json::to_string_pretty(&file_schema()).unwrap() + "\n";
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let stored = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(stored, text, "run the tests once with UPDATE_SCHEMA=1");
    }

    #[test]
    fn the_example_is_read_as_it_stands() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/mezzanine-cluster1.json");
        let read = crate::strict::read_file("example", &std::fs::read(path).unwrap()).unwrap();
        let roles: Vec<Role> = read.iter().map(|(_, target)| target.role).collect();
        assert_eq!(roles, [Role::Master, Role::Minion, Role::Minion]);
    }
}
