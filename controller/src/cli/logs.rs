//! `logs`: a server's error log, over SQL; of one that is down the last lines that its agent saw.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use schemadock_schema::keys::Keys;
use schemadock_store::{Selector, Store};

use super::mysql::{Located, Server, locate, plain, secrets_of};
use super::{Context, Failure};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The instance.
    pub instance: String,
    /// Go on with what is written from now on.
    #[arg(short, long)]
    pub follow: bool,
    /// How many of the last lines.
    #[arg(short = 'n', long, default_value_t = 100, value_name = "N")]
    pub lines: u32,
}

/// How often a log is asked for news: the server tells nobody of them.
const PERIOD: Duration = Duration::from_secs(1);
/// How long a look into the log may take.
const DEADLINE: Duration = Duration::from_secs(10);

impl Args {
    /// Whether scripts read the output.
    #[expect(clippy::unused_self, reason = "the shape is that of all commands")]
    pub(super) fn json(&self) -> bool {
        false
    }
}

/// Runs the command.
///
/// # Errors
/// When the instance is unknown, or neither its server nor its agent has anything to show.
pub async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let store = ctx.store().await?;
    let instance = locate(store.as_ref(), &ctx.keys, &args.instance).await?;
    let mut log = match open(store.as_ref(), &ctx.keys, &instance).await {
        Ok(log) => log,
        Err(failure) => return from_agent(store.as_ref(), &ctx.keys, &instance, failure).await,
    };
    log.show(Some(args.lines)).await?;
    if !args.follow {
        return Ok(());
    }
    loop {
        tokio::time::sleep(PERIOD).await;
        if let Err(failure) = log.show(None).await {
            anstream::eprintln!("{failure}");
            log = reopened(store.as_ref(), &ctx.keys, &instance, &log.newest).await?;
            anstream::eprintln!("connected again");
        }
    }
}

/// A server's log, read up to some line.
struct Log {
    connection: Conn,
    /// Time of the newest line shown, as the server writes it.
    newest: String,
}

async fn open(store: &dyn Store, keys: &Keys, instance: &Located) -> Result<Log, Failure> {
    let secrets = secrets_of(store, keys, instance).await?;
    let mut connection = Server::of(instance, secrets)?.connect().await?;
    in_time(connection.query_drop("SET time_zone = '+00:00'")).await?;
    Ok(Log { connection, newest: "1970-01-02 00:00:00".to_owned() })
}

/// The same log once its server answers again.
async fn reopened(store: &dyn Store, keys: &Keys, instance: &Located, newest: &str) -> Result<Log, Failure> {
    loop {
        tokio::time::sleep(PERIOD).await;
        // Its address or its credentials may have changed meanwhile; that etcd is away is no reason to give up.
        let Ok(found) = locate(store, keys, instance.name.as_str()).await else { continue };
        if let Ok(log) = open(store, keys, &found).await {
            return Ok(Log { newest: newest.to_owned(), ..log });
        }
    }
}

impl Log {
    /// Shows what is newer than what was shown, at most the last `limit` lines of it.
    async fn show(&mut self, limit: Option<u32>) -> Result<(), Failure> {
        let limit = limit.unwrap_or(u32::MAX);
        let sql = format!(
            "SELECT * FROM (SELECT DATE_FORMAT(logged, '%Y-%m-%d %H:%i:%s.%f') AS at, thread_id, prio, error_code, \
             subsystem, data FROM performance_schema.error_log WHERE logged > '{}' ORDER BY logged DESC LIMIT {limit}) \
             AS newest ORDER BY at",
            self.newest
        );
        let rows: Vec<Row> = in_time(self.connection.query(sql)).await?;
        for row in rows {
            let (at, thread, level, code, part, text): (String, u64, String, String, String, String) =
                mysql_async::from_row_opt(row)
                    .map_err(|why| Failure::failed(format!("the server's log has another shape: {why}")))?;
            anstream::println!("{}Z {thread} [{level}] [{code}] [{part}] {text}", at.replace(' ', "T"));
            self.newest = at;
        }
        Ok(())
    }
}

async fn in_time<T>(call: impl Future<Output = mysql_async::Result<T>>) -> Result<T, Failure> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(why)) => Err(Failure::failed(plain(&why))),
        Err(_) => Err(Failure::failed("the server did not answer within 10 s")),
    }
}

/// The last lines that the agent saw of a server that is down.
async fn from_agent(
    store: &dyn Store,
    keys: &Keys,
    instance: &Located,
    down: Failure,
) -> Result<(), Failure> {
    let key = keys.log(&instance.host, &instance.name);
    let seen = store.read(&[Selector::Key(key.clone())]).await?;
    let Some(entry) = seen.get(&key) else {
        return Err(down);
    };
    anstream::eprintln!("{down}");
    anstream::eprintln!("The last lines that its agent saw, when a server of it last ended unasked:");
    anstream::println!("{}", String::from_utf8_lossy(&entry.value).trim_end());
    Ok(())
}
