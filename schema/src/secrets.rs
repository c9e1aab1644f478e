//! Credentials of a cluster: `P/secrets/<cluster>`. Created once, then changed by compare-and-swap only.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The account an agent uses, over the unix socket only.
pub const AGENT_USER: &str = "schemadock_agent";
/// The administrator's account, over TCP with TLS only.
pub const ADMIN_USER: &str = "schemadock_admin";

/// The replication account of the member with this server id.
pub fn replication_user(server_id: u32) -> String {
    format!("schemadock_r{server_id}")
}

/// All credentials of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// Rises with every change.
    pub version: u64,
    /// Of [`AGENT_USER`].
    pub agent: Password,
    /// Of [`ADMIN_USER`].
    pub admin: Password,
    /// The application's account.
    pub application: Credential,
    /// One password for the replication accounts of all members.
    pub replication: Password,
}

/// A user with its password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// The user.
    pub user: String,
    /// The password.
    pub password: Password,
}

/// A password: it never shows in debug output, and has no `Display`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(String);

impl Password {
    /// Wraps a secret text.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret text, for the one call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

impl Secrets {
    /// Credentials made from random text: five passwords' worth of it and eight hexadecimal digits.
    pub fn from_random(mut password: impl FnMut() -> String, hex8: &str) -> Self {
        let mut next = || Password::new(password());
        Self {
            version: 1,
            agent: next(),
            admin: next(),
            application: Credential { user: format!("app_{hex8}"), password: next() },
            replication: next(),
        }
    }
}
