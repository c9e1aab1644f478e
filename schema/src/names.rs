//! Names of hosts, clusters and instances.
//!
//! An instance is called `<host>-<cluster>-<member>`. The reading is made once, when a document is written;
//! afterwards its `host` and `cluster` fields decide.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name, in bytes: names become file names, container names and DNS labels.
pub const MAX_NAME: usize = 63;

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("a name cannot be empty")]
    Empty,
    /// Longer than [`MAX_NAME`].
    #[error("{0:?} is {1} bytes long; names have at most {MAX_NAME}")]
    TooLong(String, usize),
    /// A character outside `[a-z0-9-]`, or a hyphen at an end.
    #[error("{0:?} is not a name: lower-case letters, digits and inner hyphens only")]
    Characters(String),
    /// An instance's name without the three parts.
    #[error("{0:?} cannot be read as <host>-<cluster>-<member>")]
    Parts(String),
}

fn check(text: &str) -> Result<(), NameError> {
    let bytes = text.as_bytes();
    if bytes.is_empty() {
        return Err(NameError::Empty);
    }
    if bytes.len() > MAX_NAME {
        return Err(NameError::TooLong(text.to_owned(), bytes.len()));
    }
    let inner = bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    if !inner || bytes[0] == b'-' || bytes[bytes.len() - 1] == b'-' {
        return Err(NameError::Characters(text.to_owned()));
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                check(&text)?;
                Ok(Self(text))
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "maxLength": 63,
                    "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
                })
            }
        }
    };
}

name!(
    /// A machine that runs Docker and one agent.
    HostName
);
name!(
    /// One master and the instances that follow it.
    ClusterName
);
name!(
    /// One mysqld in one container; unique in the fleet.
    InstanceName
);

/// An instance's name, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameParts {
    /// The longest registered host that fits, else what precedes the first hyphen.
    pub host: HostName,
    /// What stands between host and member.
    pub cluster: ClusterName,
    /// What follows the last hyphen.
    pub member: String,
}

/// Reads `<host>-<cluster>-<member>` in the light of the registered hosts.
///
/// # Errors
/// When one of the three parts is missing or is no name.
pub fn read_name(name: &InstanceName, hosts: &BTreeSet<HostName>) -> Result<NameParts, NameError> {
    let parts = || NameError::Parts(name.as_str().to_owned());
    let (rest, member) = name.as_str().rsplit_once('-').ok_or_else(parts)?;
    let registered = hosts
        .iter()
        .filter(|host| {
            rest.strip_prefix(host.as_str()).is_some_and(|tail| tail.len() > 1 && tail.starts_with('-'))
        })
        .max_by_key(|host| host.as_str().len());
    let (host, cluster) = match registered {
        Some(host) => (host.as_str(), &rest[host.as_str().len() + 1..]),
        None => rest.split_once('-').ok_or_else(parts)?,
    };
    Ok(NameParts {
        host: host.parse().map_err(|_| parts())?,
        cluster: cluster.parse().map_err(|_| parts())?,
        member: if check(member).is_ok() {
            member.to_owned()
        } else {
            return Err(parts());
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, hosts: &[&str]) -> Result<(String, String, String), NameError> {
        let hosts = hosts.iter().map(|h| h.parse().unwrap()).collect();
        read_name(&name.parse().unwrap(), &hosts)
            .map(|p| (p.host.to_string(), p.cluster.to_string(), p.member))
    }

    #[test]
    fn the_original_name_reads_with_and_without_registered_hosts() {
        let expected = ("schemadock01".into(), "mezzanine-cluster1".into(), "db1".into());
        assert_eq!(read("schemadock01-mezzanine-cluster1-db1", &[]).unwrap(), expected);
        assert_eq!(read("schemadock01-mezzanine-cluster1-db1", &["schemadock01"]).unwrap(), expected);
    }

    #[test]
    fn the_longest_registered_host_wins() {
        let (host, cluster, member) = read("rack-1-a-db2", &["rack", "rack-1", "rack-1-a-db2"]).unwrap();
        assert_eq!((host.as_str(), cluster.as_str(), member.as_str()), ("rack-1", "a", "db2"));
    }

    #[test]
    fn a_host_that_leaves_no_cluster_does_not_fit() {
        let (host, cluster, _) = read("a-b-c", &["a-b", "a"]).unwrap();
        assert_eq!((host.as_str(), cluster.as_str()), ("a", "b"));
    }

    #[test]
    fn names_without_three_parts_are_refused() {
        assert!(matches!(read("db1", &[]), Err(NameError::Parts(_))));
        assert!(matches!(read("host-db1", &[]), Err(NameError::Parts(_))));
        assert!(matches!(read("a--b", &[]), Err(NameError::Parts(_))));
    }

    #[test]
    fn bad_characters_and_lengths_are_refused() {
        for bad in ["", "A", "a_b", "-a", "a-", "ä", &"x".repeat(64)] {
            assert!(bad.parse::<InstanceName>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(63).parse::<InstanceName>().is_ok());
    }
}
