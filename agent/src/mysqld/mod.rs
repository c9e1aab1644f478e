//! The seam to the servers: typed verbs. SQL text stands in the adapter only.

pub mod adapter;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use schemadock_agent_plan::accounts::Account;
use schemadock_agent_plan::frozen::Schemas;
use schemadock_agent_plan::observed::{AccountSeen, CloneSeen, ServerSeen, SourceSeen, Variables};
use schemadock_schema::gtid::GtidSet;
use schemadock_schema::secrets::{ADMIN_USER, Password, Secrets};

/// Where a server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// The unix socket of an own server.
    Socket(PathBuf),
    /// Another server, over TCP with TLS.
    Tcp {
        /// Address.
        host: String,
        /// Port.
        port: u16,
    },
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Endpoint::Socket(path) => write!(f, "{}", path.display()),
            Endpoint::Tcp { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// Who logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// User.
    pub user: String,
    /// Password.
    pub password: Password,
}

impl Login {
    /// A cluster's administrator, as agents and people ask servers of other hosts.
    pub fn admin(secrets: &Secrets) -> Login {
        Login { user: ADMIN_USER.to_owned(), password: secrets.admin.clone() }
    }
}

/// What a server is to replicate from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSpec {
    /// Address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Account.
    pub user: String,
    /// Its password.
    pub password: Password,
}

/// A scheduled event of MySQL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScheduledEvent {
    /// Its schema.
    pub schema: String,
    /// Its name there.
    pub name: String,
}

/// Where a server stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Its identity.
    pub server_uuid: String,
    /// Takes no writes from anybody, or is about to: only the return of the statement says that none is under way.
    pub super_read_only: bool,
    /// What was received over the channel `''` is being applied.
    pub applies: bool,
    /// Executed.
    pub executed: GtidSet,
}

/// What a session that waits for a lock to be exchanged finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockSeen {
    /// Nobody has either of them.
    Free,
    /// Somebody has the first one still.
    Held,
    /// Somebody has the second one.
    Exchanged,
}

/// Why a server did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MysqlError {
    /// No answer within the deadline; the connection is poisoned, whether it was done is unknown.
    #[error("mysqld at {endpoint} did not answer {what} within {seconds:.1} s")]
    Deadline {
        /// Where.
        endpoint: String,
        /// What was asked.
        what: &'static str,
        /// The deadline.
        seconds: f64,
    },
    /// The connection failed or broke.
    #[error("mysqld at {endpoint} cannot be reached: {why}")]
    Connection {
        /// Where.
        endpoint: String,
        /// The transport's reason.
        why: String,
    },
    /// The server answered with an error.
    #[error("mysqld refused {what}: {number} {message}")]
    Server {
        /// What was asked.
        what: &'static str,
        /// MySQL's number.
        number: u16,
        /// MySQL's words.
        message: String,
    },
    /// Connections that were ended are still there.
    #[error("mysqld still has {count} connections {seconds} s after it was asked for {what}")]
    Remains {
        /// What was asked.
        what: &'static str,
        /// How many.
        count: usize,
        /// How long they were waited for.
        seconds: u64,
    },
    /// The answer was not what such a server answers.
    #[error("mysqld answered {what} in an unknown way: {why}")]
    Answer {
        /// What was asked.
        what: &'static str,
        /// What was wrong.
        why: String,
    },
}

impl MysqlError {
    /// MySQL's number, where the server answered.
    pub fn number(&self) -> Option<u16> {
        match self {
            MysqlError::Server { number, .. } => Some(*number),
            _ => None,
        }
    }

    /// Whether the connection can be used no more.
    pub fn is_broken(&self) -> bool {
        matches!(self, MysqlError::Deadline { .. } | MysqlError::Connection { .. })
    }
}

/// Opens sessions.
#[async_trait]
pub trait Mysqld: Send + Sync + 'static {
    /// Logs in. On a socket without TLS, over TCP always with it.
    async fn connect(
        &self,
        endpoint: &Endpoint,
        login: &Login,
        deadline: Duration,
    ) -> Result<Box<dyn Session>, MysqlError>;
}

/// One session. Every verb has a deadline; after an error that [is broken](MysqlError::is_broken) the session must be
/// dropped, and dropping closes it.
#[async_trait]
pub trait Session: Send {
    /// All that the plans look at, in one round trip (two at most).
    async fn observe(&mut self) -> Result<ServerSeen, MysqlError>;

    /// The cheapest look, for moments in which nobody can write.
    async fn position(&mut self) -> Result<Position, MysqlError>;

    /// Looks at another server for its would-be replica, whose account is `account`.
    async fn observe_source(&mut self, account: &str) -> Result<SourceSeen, MysqlError>;

    /// The values of these global variables; unknown ones are missing.
    async fn variables(&mut self, names: &[&str]) -> Result<Variables, MysqlError>;

    /// `SET GLOBAL`; a number is passed as one, `DEFAULT` where `value` is none.
    async fn set_variable(&mut self, name: &str, value: Option<&str>) -> Result<(), MysqlError>;

    /// Ends and keeps out sessions without CONNECTION_ADMIN. Never blocked.
    async fn set_offline_mode(&mut self, on: bool) -> Result<(), MysqlError>;

    /// Success of `on` means that it has returned: no write is under way any more, and `read_only` is on, too. It waits
    /// for `LOCK TABLES` and commits up to `deadline`; then the statement is killed from a second session, writes go
    /// on, and the answer is an error of the server (1317, or 1205 where it gave up by itself) on a session that stays
    /// good. [`MysqlError::Deadline`]: the server does not answer at all.
    async fn set_super_read_only(&mut self, on: bool, deadline: Duration) -> Result<(), MysqlError>;

    /// Turning it off turns `super_read_only` off, too.
    async fn set_read_only(&mut self, on: bool) -> Result<(), MysqlError>;

    /// Commits a marker (`DROP TABLE IF EXISTS` of a table that is not there): takes a GTID and waits like any commit.
    /// The deadline ends the wait, not the commit: that one goes on.
    async fn marker(&mut self, deadline: Duration) -> Result<(), MysqlError>;

    /// Semi-sync towards replicas, with the count of acknowledgements. Success means that commits wait for so many; off
    /// takes a second.
    async fn set_semi_sync_source(&mut self, acks: Option<u32>) -> Result<(), MysqlError>;

    /// Semi-sync towards the source; takes effect with the receiver's next start.
    async fn set_semi_sync_replica(&mut self, on: bool) -> Result<(), MysqlError>;

    /// Makes the channel anew with auto-position and TLS: throws relay logs away, so only where received is within
    /// executed. Starts neither thread.
    async fn change_source(&mut self, source: &SourceSpec) -> Result<(), MysqlError>;

    /// Only address and port, keeping what was received (L6). The receiver must be off; with the applier off, which
    /// would lose what was received, it is refused.
    async fn repoint(&mut self, host: &str, port: u16) -> Result<(), MysqlError>;

    /// Starts the receiver.
    async fn start_receiver(&mut self) -> Result<(), MysqlError>;

    /// Stops the receiver; success means `SERVICE_STATE='OFF'` was seen.
    async fn stop_receiver(&mut self, deadline: Duration) -> Result<(), MysqlError>;

    /// Starts the applier.
    async fn start_applier(&mut self) -> Result<(), MysqlError>;

    /// Stops the applier. With the receiver off, a transaction of which only a part has come is rolled back; it comes again
    /// with the receiver's next start.
    async fn stop_applier(&mut self, deadline: Duration) -> Result<(), MysqlError>;

    /// Forgets the channel and its relay logs. Both threads must be off.
    async fn forget_source(&mut self) -> Result<(), MysqlError>;

    /// All accounts whose user begins with `schemadock_` or `app_`, and root.
    async fn accounts(&mut self) -> Result<Vec<AccountSeen>, MysqlError>;

    /// Makes or mends an account, with `sql_log_bin=0`. Refused with 1290 under `super_read_only`.
    async fn ensure_account(&mut self, account: &Account) -> Result<(), MysqlError>;

    /// Locks replication accounts and unlocks others, with `sql_log_bin=0`; those that are not there are left out.
    /// Connections that are open stay. Refused with 1290 under `super_read_only`.
    async fn lock_accounts(&mut self, lock: &[String], unlock: &[String]) -> Result<(), MysqlError>;

    /// All schemas but the server's own, and whether each is READ ONLY.
    async fn schemas(&mut self) -> Result<Schemas, MysqlError>;

    /// Sets or clears a schema's READ ONLY flag, with `sql_log_bin=0`. It waits for transactions that have used the schema,
    /// and others wait behind it: after a second it is given up (1205), and who was in the way is named. Refused with 1290
    /// under `super_read_only`.
    async fn set_schema_read_only(&mut self, schema: &str, on: bool) -> Result<(), MysqlError>;

    /// Tables, `schema.table (engine)`, whose rows a CLONE from this server would leave out.
    async fn tables_that_clone_empties(&mut self) -> Result<Vec<String>, MysqlError>;

    /// Names the donors that a CLONE may come from.
    async fn set_clone_donors(&mut self, donors: &str) -> Result<(), MysqlError>;

    /// CLONE from a donor: long, to be started on a session of its own and observed from another. Success means that
    /// the server has ended; its agent starts it again and asks [`clone_progress`](Session::clone_progress) how it was.
    ///
    /// # Errors
    /// 1290: the server has a user schema and is `super_read_only`; 3869: the donor is not among those set; 3862: the
    /// donor cannot be reached or refuses; 3864, 3868, 3870 and following: donor and recipient do not fit.
    async fn clone_from(&mut self, donor: &SourceSpec) -> Result<(), MysqlError>;

    /// How the last CLONE into this server stands.
    async fn clone_progress(&mut self) -> Result<CloneSeen, MysqlError>;

    /// Ends all other sessions of this session's user and sees them gone. A marker that waits for its acknowledgement
    /// cannot be ended: it does nothing more.
    async fn end_own_sessions(&mut self) -> Result<u32, MysqlError>;

    /// Ends all sessions of users without CONNECTION_ADMIN and SUPER, and sees them gone.
    async fn end_client_sessions(&mut self) -> Result<u32, MysqlError>;

    /// Ends all sessions of these users, dump threads too, and sees them gone; those that end by themselves within `grace`
    /// are not killed.
    ///
    /// A dump thread whose replica acknowledges at this moment is better not killed: over TLS that can leave the plugin's
    /// thread that reads acknowledgements in an endless loop, and every commit waits from then on (seen with MySQL 9.7.4).
    async fn end_sessions_of(&mut self, users: &[String], grace: Duration) -> Result<u32, MysqlError>;

    /// Ends all connections that acknowledge what they receive, but for those of these users, and sees them gone; whose
    /// they were.
    async fn end_acknowledgers(&mut self, kept: &BTreeSet<String>) -> Result<BTreeSet<String>, MysqlError>;

    /// Commits an empty transaction under each of these GTIDs. Works under `super_read_only`, too.
    async fn inject_empty(&mut self, gtids: &GtidSet) -> Result<(), MysqlError>;

    /// Of these GTIDs of the server's own binary log: those that touch no row of a base table (a FLUSH, the emptying of
    /// a MEMORY table after a restart, and the like).
    async fn harmless(&mut self, gtids: &GtidSet) -> Result<GtidSet, MysqlError>;

    /// Scheduled events that this server runs.
    async fn enabled_events(&mut self) -> Result<Vec<ScheduledEvent>, MysqlError>;

    /// Enables those of these events that are here and do not run, by statements that replicas see; how many. On a
    /// session of its own: it is left with the settings of the last event.
    async fn enable_events(&mut self, events: &[ScheduledEvent]) -> Result<u32, MysqlError>;

    /// The newest lines of the error log.
    async fn error_log(&mut self, lines: usize) -> Result<Vec<String>, MysqlError>;

    /// Waits until these are executed, at most `deadline`; `false`: not yet.
    async fn wait_executed(&mut self, gtids: &GtidSet, deadline: Duration) -> Result<bool, MysqlError>;

    /// Takes a lock by its name (`GET_LOCK`; at most 64 characters) and gives up all others that the session has; they end
    /// with it. `false`: another session has it.
    async fn take_lock(&mut self, lock: &str) -> Result<bool, MysqlError>;

    /// Takes the second lock, and only then gives the first one up. Takes nothing where the session does not have the first.
    async fn exchange_lock(&mut self, first: &str, second: &str) -> Result<(), MysqlError>;

    /// Waits while another session has the first lock, at most `deadline` (whole seconds), and hears at once when it is
    /// given up. Anybody may take a lock of any name: the second one counts only in a session of `user`.
    async fn await_exchange(
        &mut self,
        first: &str,
        second: &str,
        user: &str,
        deadline: Duration,
    ) -> Result<LockSeen, MysqlError>;

    /// Values that are in force but differ from these.
    async fn differing(&mut self, wanted: &BTreeMap<String, String>) -> Result<Variables, MysqlError> {
        let names: Vec<&str> = wanted.keys().map(String::as_str).collect();
        let found = self.variables(&names).await?;
        Ok(found
            .into_iter()
            .filter(|(name, value)| wanted.get(name).is_some_and(|w| !same_value(w, value)))
            .collect())
    }
}

/// Whether a value as written and one as the server shows it mean the same.
pub fn same_value(written: &str, shown: &str) -> bool {
    fn canonical(text: &str) -> String {
        let text = text.trim();
        match text.to_ascii_uppercase().as_str() {
            "ON" | "TRUE" | "YES" => return "1".to_owned(),
            "OFF" | "FALSE" | "NO" => return "0".to_owned(),
            _ => {}
        }
        let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let shift = match unit.to_ascii_uppercase().as_str() {
            "K" => 10,
            "M" => 20,
            "G" => 30,
            "T" => 40,
            "P" => 50,
            "E" => 60,
            _ => 0,
        };
        if shift > 0
            && let Some(bytes) = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift))
        {
            return bytes.to_string();
        }
        if let Ok(number) = text.parse::<f64>() {
            return number.to_string();
        }
        text.to_ascii_uppercase()
    }
    canonical(written) == canonical(shown)
}
