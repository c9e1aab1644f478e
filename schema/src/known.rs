//! What is known of a part of the world.

use serde::{Deserialize, Serialize};

/// A part of the world as last observed. A daemon that does not answer is [`Known::Unknown`], never
/// [`Known::Absent`]: only a positive answer may lead to making something anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Known<T> {
    /// Looked at, and not there.
    Absent,
    /// Looked at, and there.
    Present(T),
    /// Could not be looked at, or not yet.
    Unknown(WhyUnknown),
}

/// Why something is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhyUnknown {
    /// Nobody has looked yet.
    NotYet,
    /// The one who would know did not answer within its deadline.
    Deadline(String),
    /// The one who would know answered with an error.
    Error(String),
}

impl std::fmt::Display for WhyUnknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            WhyUnknown::NotYet => f.write_str("not looked at yet"),
            WhyUnknown::Deadline(who) => write!(f, "{who} did not answer in time"),
            WhyUnknown::Error(what) => f.write_str(what),
        }
    }
}

impl<T> Known<T> {
    /// The value, if it is known to be there.
    pub fn present(&self) -> Option<&T> {
        match self {
            Known::Present(value) => Some(value),
            Known::Absent | Known::Unknown(_) => None,
        }
    }

    /// True only when somebody looked and it was not there.
    pub fn is_absent(&self) -> bool {
        matches!(self, Known::Absent)
    }

    /// True while nobody could look.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Known::Unknown(_))
    }

    /// Maps what is present.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Known<U> {
        match self {
            Known::Absent => Known::Absent,
            Known::Present(value) => Known::Present(f(value)),
            Known::Unknown(why) => Known::Unknown(why),
        }
    }
}

impl<T> From<Option<T>> for Known<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Known::Absent, Known::Present)
    }
}
