//! A connection on which every statement has a deadline. One that was met ends the connection: an answer that comes
//! late would be taken for the next one's.

use std::borrow::Cow;
use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, DriverError, OptsBuilder, Row, SslOpts, Value};
use schemadock_schema::secrets::Password;

use crate::mysqld::{Endpoint, Login, MysqlError};

/// How long an ordinary statement may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);
/// How long one that waits for a lock or for the disk may take.
pub(super) const LONG: Duration = Duration::from_secs(10);
/// How long a connection may take to say good-bye.
const GOOD_BYE: Duration = Duration::from_secs(1);
/// The largest answer, in bytes; named so that the driver need not ask the server for its own limit.
const LARGEST: usize = 64 << 20;

/// How statements here are meant, whatever the server's defaults: backslashes quote; a value out of range is refused
/// (1231) and not bent silently, which would look like drift ever after; times are UTC; what waits is not ended early.
const MEANING: &str =
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES', time_zone = '+00:00', max_execution_time = 0";

/// MySQL: no such account, or not this password.
const ER_ACCESS_DENIED_ERROR: u16 = 1045;
/// MySQL: a syntax error. Its text quotes the statement.
const ER_PARSE_ERROR: u16 = 1064;
/// MySQL: it is shutting down, the session was killed, it was idle for too long. The server closes the connection.
const SESSION_ENDED: [u16; 3] = [1053, 3169, 4031];

/// See the module.
pub(super) struct Wire {
    open: Open,
    id: u32,
    address: Address,
}

/// Where a wire leads, and as whom.
#[derive(Clone)]
pub(super) struct Address {
    endpoint: Endpoint,
    login: Login,
}

/// A connection that parts wherever it is dropped, also with a statement half done.
struct Open(Option<Conn>);

impl Drop for Open {
    fn drop(&mut self) {
        let Some(conn) = self.0.take() else { return };
        // Left to itself the driver would wait for a frozen server without an end. Without a runtime nobody can say
        // good-bye: the socket is closed right here.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // A refusal to part is no concern of anybody's any more.
                let _ = tokio::time::timeout(GOOD_BYE, conn.disconnect()).await;
            });
        }
    }
}

impl Address {
    /// Logs in.
    pub(super) async fn connect(self, deadline: Duration) -> Result<Wire, MysqlError> {
        const WHAT: &str = "the login";
        match tokio::time::timeout(deadline, Conn::new(self.options())).await {
            Ok(Ok(conn)) => Ok(Wire { id: conn.id(), open: Open(Some(conn)), address: self }),
            Ok(Err(error)) => Err(self.classify(WHAT, error)),
            Err(_) => Err(self.late(WHAT, deadline)),
        }
    }

    fn options(&self) -> OptsBuilder {
        let options = OptsBuilder::default()
            .user(Some(self.login.user.clone()))
            .pass(Some(self.login.password.expose().to_owned()))
            .prefer_socket(false)
            .stmt_cache_size(0)
            .max_allowed_packet(Some(LARGEST))
            .wait_timeout(Some(28_800))
            .init(vec![MEANING]);
        match &self.endpoint {
            Endpoint::Socket(path) => options.socket(Some(path.display().to_string())),
            Endpoint::Tcp { host, port } => options
                .ip_or_hostname(host.clone())
                .tcp_port(*port)
                .tcp_nodelay(true)
                // MySQL's own certificates name nobody: encrypted, but not verified, at this stage.
                .ssl_opts(
                    SslOpts::default()
                        .with_danger_accept_invalid_certs(true)
                        .with_danger_skip_domain_validation(true),
                ),
        }
    }

    fn classify(&self, what: &'static str, error: mysql_async::Error) -> MysqlError {
        match error {
            mysql_async::Error::Server(error) if !SESSION_ENDED.contains(&error.code) => {
                MysqlError::Server { what, number: error.code, message: error.message }
            }
            // What a server answers for an account that it does not have, so that nobody learns which ones it has.
            mysql_async::Error::Driver(DriverError::UnknownAuthPlugin { name }) => MysqlError::Server {
                what,
                number: ER_ACCESS_DENIED_ERROR,
                message: format!(
                    "the account is not there, or has a plugin that is not spoken here ({name})"
                ),
            },
            other => self.broken(other.to_string()),
        }
    }

    fn late(&self, what: &'static str, deadline: Duration) -> MysqlError {
        MysqlError::Deadline { endpoint: self.endpoint.to_string(), what, seconds: deadline.as_secs_f64() }
    }

    fn broken(&self, why: String) -> MysqlError {
        MysqlError::Connection { endpoint: self.endpoint.to_string(), why }
    }
}

impl Wire {
    /// Logs in.
    pub(super) async fn connect(
        endpoint: &Endpoint,
        login: &Login,
        deadline: Duration,
    ) -> Result<Wire, MysqlError> {
        Address { endpoint: endpoint.clone(), login: login.clone() }.connect(deadline).await
    }

    /// Where a second connection to the same server is had.
    pub(super) fn address(&self) -> Address {
        self.address.clone()
    }

    /// Who is logged in.
    pub(super) fn user(&self) -> &str {
        &self.address.login.user
    }

    /// The server's number of this connection.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// Whether it was given up.
    pub(super) fn is_poisoned(&self) -> bool {
        self.open.0.is_none()
    }

    /// Gives the connection up.
    pub(super) fn poison(&mut self) {
        self.open = Open(None);
    }

    /// Runs a statement and reads its first result.
    pub(super) async fn rows(
        &mut self,
        what: &'static str,
        sql: &str,
        deadline: Duration,
    ) -> Result<Vec<Row>, MysqlError> {
        // Whoever drops this future half way drops the connection with it.
        let mut open = Open(self.open.0.take());
        let Some(conn) = &mut open.0 else {
            return Err(self.address.broken("the connection was given up after an earlier fault".to_owned()));
        };
        match tokio::time::timeout(deadline, conn.query::<Row, _>(sql)).await {
            Ok(Ok(rows)) => {
                self.open = open;
                Ok(rows)
            }
            Ok(Err(error)) => {
                let error = self.address.classify(what, error);
                if !error.is_broken() {
                    self.open = open;
                }
                Err(error)
            }
            Err(_) => Err(self.address.late(what, deadline)),
        }
    }

    /// Runs a statement that answers exactly one row.
    pub(super) async fn row(
        &mut self,
        what: &'static str,
        sql: &str,
        deadline: Duration,
    ) -> Result<Row, MysqlError> {
        let rows = self.rows(what, sql, deadline).await?;
        rows.into_iter().next().ok_or_else(|| MysqlError::Answer { what, why: "no row".to_owned() })
    }

    /// Runs a statement that answers nothing.
    pub(super) async fn run(
        &mut self,
        what: &'static str,
        sql: &str,
        deadline: Duration,
    ) -> Result<(), MysqlError> {
        self.rows(what, sql, deadline).await.map(drop)
    }

    /// Runs statements that are not written to the binary log: they are this server's alone. The first error ends it.
    pub(super) async fn run_unlogged(
        &mut self,
        what: &'static str,
        statements: &[String],
        secret: Option<&Password>,
    ) -> Result<(), MysqlError> {
        let mut sealed = Sealed::begin(self);
        let wire = sealed.wire();
        wire.run(what, "SET SESSION sql_log_bin = 0", DEADLINE).await?;
        let mut result = Ok(());
        for statement in statements {
            result = match secret {
                Some(secret) => wire.run_secret(what, statement, secret, LONG).await,
                None => wire.run(what, statement, LONG).await,
            };
            if result.is_err() {
                break;
            }
        }
        let restored = wire.run(what, "SET SESSION sql_log_bin = 1", DEADLINE).await;
        if restored.is_ok() {
            sealed.finish();
        }
        result.and(restored)
    }

    /// Runs a statement that holds a password. What the server says of it is passed on without it.
    pub(super) async fn run_secret(
        &mut self,
        what: &'static str,
        sql: &str,
        secret: &Password,
        deadline: Duration,
    ) -> Result<(), MysqlError> {
        self.run(what, sql, deadline).await.map_err(|error| match error {
            MysqlError::Server { what, number, message } => {
                MysqlError::Server { what, number, message: redacted(number, &message, secret) }
            }
            other => other,
        })
    }
}

/// A syntax error quotes the statement from somewhere to somewhere, perhaps a part of the password: nothing of it is
/// kept. Other texts name objects.
fn redacted(number: u16, message: &str, secret: &Password) -> String {
    if number == ER_PARSE_ERROR {
        return "it does not understand the statement (not shown, it holds a password)".to_owned();
    }
    match secret.expose() {
        "" => message.to_owned(),
        secret => message.replace(secret, "…"),
    }
}

/// Statements that a session must not be left in the middle of (`gtid_next`, `sql_log_bin`): unless it is finished, the
/// connection is given up, also when the future is dropped.
pub(super) struct Sealed<'a> {
    wire: &'a mut Wire,
    finished: bool,
}

impl<'a> Sealed<'a> {
    /// Begins.
    pub(super) fn begin(wire: &'a mut Wire) -> Self {
        Self { wire, finished: false }
    }

    /// The connection.
    pub(super) fn wire(&mut self) -> &mut Wire {
        self.wire
    }

    /// The session is as it was before.
    pub(super) fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for Sealed<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.wire.poison();
        }
    }
}

/// A column as text; none where NULL.
pub(super) fn text(row: &Row, column: usize) -> Option<Cow<'_, str>> {
    match row.as_ref(column)? {
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes)),
        _ => None,
    }
}

/// A column as text of its own.
pub(super) fn owned(row: &Row, column: usize) -> Option<String> {
    text(row, column).map(Cow::into_owned)
}

/// A column as a number; none where NULL or no such number.
pub(super) fn number<T: std::str::FromStr>(row: &Row, column: usize) -> Option<T> {
    text(row, column)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_passes_through_an_error() {
        let secret = Password::new("s3cret".to_owned());
        assert!(!redacted(ER_PARSE_ERROR, "near 's3cr", &secret).contains("s3c"));
        assert_eq!(redacted(1396, "failed for s3cret", &secret), "failed for …");
        assert_eq!(redacted(1396, "failed", &Password::new(String::new())), "failed");
    }
}
