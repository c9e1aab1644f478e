//! SQL on a server under test.

use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts, OptsBuilder, Row, SslOpts, Value};

/// How long a statement may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// One connection.
#[derive(Debug)]
pub struct Sql {
    conn: Conn,
}

pub(super) fn options(address: &str, port: u16, user: &str, password: &str) -> Opts {
    // The certificates are MySQL's own and name nobody.
    let tls =
        SslOpts::default().with_danger_accept_invalid_certs(true).with_danger_skip_domain_validation(true);
    OptsBuilder::default()
        .ip_or_hostname(address)
        .tcp_port(port)
        .user(Some(user))
        .pass(Some(password))
        .prefer_socket(false)
        .stmt_cache_size(0)
        .ssl_opts(tls)
        .into()
}

impl Sql {
    /// Connects; panics where that is refused.
    pub async fn connect(address: &str, port: u16, user: &str, password: &str) -> Sql {
        Sql::try_connect(address, port, user, password)
            .await
            .unwrap_or_else(|why| panic!("{user} at {address}:{port}: {why}"))
    }

    /// Connects, or says why not.
    pub async fn try_connect(address: &str, port: u16, user: &str, password: &str) -> Result<Sql, String> {
        let opening = Conn::new(options(address, port, user, password));
        match tokio::time::timeout(Duration::from_secs(10), opening).await {
            Ok(Ok(conn)) => Ok(Sql { conn }),
            Ok(Err(why)) => Err(why.to_string()),
            Err(_) => Err("no answer within 10 s".to_owned()),
        }
    }

    /// Runs a statement; panics where it fails.
    pub async fn run(&mut self, statement: &str) {
        self.try_run(statement).await.unwrap_or_else(|why| panic!("{statement}: {why}"));
    }

    /// Runs a statement.
    pub async fn try_run(&mut self, statement: &str) -> Result<(), String> {
        match tokio::time::timeout(DEADLINE, self.conn.query_drop(statement)).await {
            Ok(done) => done.map_err(|why| why.to_string()),
            Err(_) => Err("no answer within its deadline".to_owned()),
        }
    }

    /// Runs a statement for as long as it takes, also one that ends the server; whether it was said to have worked.
    pub async fn run_to_its_end(&mut self, statement: &str) -> bool {
        self.conn.query_drop(statement).await.is_ok()
    }

    /// The first column of the first row as text; empty where there is no row.
    pub async fn text(&mut self, query: &str) -> String {
        self.rows(query).await.into_iter().next().and_then(|row| row.into_iter().next()).unwrap_or_default()
    }

    /// All rows as text, NULL as `NULL`.
    pub async fn rows(&mut self, query: &str) -> Vec<Vec<String>> {
        let rows = tokio::time::timeout(DEADLINE, self.conn.query::<Row, _>(query)).await;
        let rows = rows.unwrap_or_else(|_| panic!("{query}: no answer"));
        let rows = rows.unwrap_or_else(|why| panic!("{query}: {why}"));
        rows.into_iter().map(|row| row.unwrap().into_iter().map(text_of).collect()).collect()
    }

    /// The value of a global variable.
    pub async fn global(&mut self, variable: &str) -> String {
        self.text(&format!("SELECT @@GLOBAL.{variable}")).await
    }
}

fn text_of(value: Value) -> String {
    match value {
        Value::NULL => "NULL".to_owned(),
        Value::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        other => other.as_sql(true).trim_matches('\'').to_owned(),
    }
}
