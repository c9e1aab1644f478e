//! Wishes for a cluster, as `cluster set KEY=VALUE` gives them.

use crate::policy::{ClusterPolicy, FailoverMode, WishedDurability};
use crate::refusal::Refusal;
use crate::size::{MIN_MEMORY, SIZE_WORDS, Size, format_bytes, parse_bytes};
use crate::target::VariableValue;

use super::{nearest, variable_name};

/// The keys that can be set, `mysql.<variable>` aside.
const KEYS: [&str; 9] = [
    "durability",
    "acks",
    "min_copies",
    "failover",
    "failover_limit",
    "image",
    "size",
    "replicas",
    "replace_after",
];

/// One change of a policy: a value, or that the key goes back to its default.
#[derive(Debug, Clone, PartialEq)]
pub enum Setting {
    /// `durability`.
    Durability(Option<WishedDurability>),
    /// `acks`.
    Acks(Option<u32>),
    /// `min_copies`.
    MinCopies(Option<u32>),
    /// `failover`.
    Failover(Option<FailoverMode>),
    /// `failover_limit`.
    FailoverLimit(Option<u32>),
    /// `image`.
    Image(Option<String>),
    /// `size`.
    Size(Option<Size>),
    /// `replicas`.
    Replicas(Option<u32>),
    /// `replace_after`, in seconds.
    ReplaceAfter(Option<u64>),
    /// `mysql.<variable>`.
    Mysql(String, Option<VariableValue>),
}

impl Setting {
    /// Writes it into a policy.
    pub fn apply_to(self, policy: &mut ClusterPolicy) {
        match self {
            Setting::Durability(value) => policy.durability = value,
            Setting::Acks(value) => policy.acks = value,
            Setting::MinCopies(value) => policy.min_copies = value,
            Setting::Failover(value) => policy.failover = value,
            Setting::FailoverLimit(value) => policy.failover_limit = value,
            Setting::Image(value) => policy.image = value,
            Setting::Size(value) => policy.size = value,
            Setting::Replicas(value) => policy.replicas = value,
            Setting::ReplaceAfter(value) => policy.replace_after = value,
            Setting::Mysql(name, Some(value)) => drop(policy.mysql.insert(name, value)),
            Setting::Mysql(name, None) => drop(policy.mysql.remove(&name)),
        }
    }
}

/// Reads one `KEY=VALUE`; `KEY=` takes the wish back.
///
/// # Errors
/// What was found and what was expected.
pub fn read_setting(text: &str) -> Result<Setting, Refusal> {
    let refuse = |path: &str, found: String, expected: String, hint: Option<String>| Refusal {
        file: None,
        path: (!path.is_empty()).then(|| path.to_owned()),
        found,
        expected,
        hint,
    };
    let Some((key, value)) = text.split_once('=') else {
        let hint = nearest(text, KEYS);
        return Err(refuse(
            "",
            format!("{text:?}"),
            "KEY=VALUE, for example mysql.max_connections=500".into(),
            hint,
        ));
    };
    let (key, value) = (key.trim(), value.trim());
    let given = Some(value).filter(|value| !value.is_empty());
    let wrong =
        |expected: &str, hint: Option<String>| refuse(key, format!("{value:?}"), expected.to_owned(), hint);
    let number = |least: u32, most: u32| {
        let expected = if most == u32::MAX {
            format!("a whole number from {least} on")
        } else {
            format!("{least} to {most}")
        };
        given
            .map(|text| {
                let read = text.parse().ok().filter(|n| (least..=most).contains(n));
                read.ok_or_else(|| wrong(&expected, None))
            })
            .transpose()
    };
    if let Some(name) = key.strip_prefix("mysql.") {
        if let Some((expected, hint)) = variable_name(name) {
            return Err(refuse(key, format!("{name:?}"), expected, hint));
        }
        return Ok(Setting::Mysql(name.to_owned(), given.map(variable_value)));
    }
    Ok(match key {
        "durability" => Setting::Durability(match given {
            None => None,
            Some("lossless") => Some(WishedDurability::Lossless),
            Some("async") => Some(WishedDurability::Async),
            Some(word) => return Err(wrong("lossless or async", nearest(word, ["lossless", "async"]))),
        }),
        "failover" => Setting::Failover(match given {
            None => None,
            Some("auto") => Some(FailoverMode::Auto),
            Some("manual") => Some(FailoverMode::Manual),
            Some(word) => return Err(wrong("auto or manual", nearest(word, ["auto", "manual"]))),
        }),
        "acks" => Setting::Acks(number(1, 2)?),
        "min_copies" => Setting::MinCopies(number(1, u32::MAX)?),
        "failover_limit" => Setting::FailoverLimit(number(0, u32::MAX)?),
        "replicas" => Setting::Replicas(number(0, u32::MAX)?),
        "replace_after" => Setting::ReplaceAfter(number(1, u32::MAX)?.map(u64::from)),
        "image" => match given {
            Some(image) if image.contains(char::is_whitespace) => {
                return Err(wrong("the name of an image, for example mysql:8.4", None));
            }
            image => Setting::Image(image.map(str::to_owned)),
        },
        "size" => Setting::Size(
            given
                .map(|text| {
                    size(text).map_err(|hint| {
                        wrong(
                            &format!("{}, or an amount of memory such as 4GiB", SIZE_WORDS.join(", ")),
                            hint,
                        )
                    })
                })
                .transpose()?,
        ),
        "paused" => {
            let hint = "use `cluster pause` or `cluster resume`".to_owned();
            return Err(refuse(key, format!("{key:?}"), format!("one of {}", KEYS.join(", ")), Some(hint)));
        }
        _ => {
            let expected = format!("one of {}, mysql.<variable>", KEYS.join(", "));
            return Err(refuse(key, format!("an unknown key {key:?}"), expected, nearest(key, KEYS)));
        }
    })
}

fn size(text: &str) -> Result<Size, Option<String>> {
    if let Ok(size) = text.parse() {
        return Ok(size);
    }
    let size = match parse_bytes(text) {
        Ok(memory) => Size::Exact(crate::size::ExactSize { memory, cpus: None, disk: None }),
        Err(_) => serde_json::from_str(text).map_err(|_| nearest(text, SIZE_WORDS))?,
    };
    match &size {
        Size::Exact(exact) if exact.memory < MIN_MEMORY => Err(Some(format!(
            "{} is below {}: there mysqld is killed under a plain load",
            format_bytes(exact.memory),
            format_bytes(MIN_MEMORY)
        ))),
        _ => Ok(size),
    }
}

fn variable_value(text: &str) -> VariableValue {
    match text.parse::<i64>() {
        Ok(whole) => VariableValue::Integer(whole),
        Err(_) => VariableValue::Text(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_written_into_the_policy() {
        let mut policy = ClusterPolicy::default();
        for text in
            ["durability=async", "acks=2", "mysql.max_connections=500", "size=4GiB", "image=mysql:8.4"]
        {
            read_setting(text).unwrap().apply_to(&mut policy);
        }
        let json = serde_json::to_value(&policy).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"durability": "async", "acks": 2, "image": "mysql:8.4",
                "size": {"memory": "4GiB"}, "mysql": {"max_connections": 500}})
        );
        read_setting("mysql.max_connections=").unwrap().apply_to(&mut policy);
        read_setting("acks=").unwrap().apply_to(&mut policy);
        assert!(policy.mysql.is_empty() && policy.acks.is_none());
    }

    #[test]
    fn wrong_settings_are_refused_with_a_hint() {
        let table: Vec<String> = [
            "acks",
            "acks=3",
            "durabilty=async",
            "durability=asink",
            "mysql.read_only=1",
            "size=100MiB",
            "size=huge",
            "paused=true",
            "replicas=-1",
            "mysql.a b=1",
        ]
        .iter()
        .map(|text| format!("{text:20} {}", read_setting(text).unwrap_err()))
        .collect();
        insta::assert_snapshot!(table.join("\n"));
    }
}
