//! `mysql`: SQL as administrator, over TCP and TLS, from any machine that reaches etcd and the port.

mod connect;
mod locate;
mod show;
mod split;

use std::io::{IsTerminal, Write};
use std::time::Instant;

use clap::ValueEnum;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use rustyline::error::ReadlineError;
use tokio::io::{AsyncBufReadExt, BufReader};

pub(super) use connect::{Server, plain};
pub(super) use locate::{Located, locate, locate_in, secrets_of};
use split::{Splitter, Statement};

use super::{Context, Failure};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The instance.
    pub instance: String,
    /// Run this, and end; without it statements are read from stdin.
    #[arg(short = 'e', long = "execute", value_name = "SQL")]
    pub execute: Vec<String>,
    /// For people, or for scripts: tab-separated without a header, or a list of objects for each result.
    #[arg(short = 'o', long = "output", value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One row a line, tabs between the columns, no header.
    Tsv,
    /// One list of objects a line for each result.
    Json,
}

impl Args {
    /// Whether scripts read the output.
    pub(super) fn json(&self) -> bool {
        self.output == Format::Json
    }
}

/// Runs the command.
///
/// # Errors
/// When the instance is unknown or cannot be reached, or a statement fails.
pub async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let store = ctx.store().await?;
    let instance = locate(store.as_ref(), &ctx.keys, &args.instance).await?;
    let secrets = secrets_of(store.as_ref(), &ctx.keys, &instance).await?;
    let server = Server::of(&instance, secrets)?;
    let connection = server.connect().await?;
    let mut session = Session { server, connection: Some(connection), format: args.output, told: false };
    if !args.execute.is_empty() {
        let text = args.execute.join(";\n");
        let mut splitter = Splitter::default();
        for line in text.split_inclusive('\n') {
            session.all(splitter.feed(line.as_bytes())).await?;
        }
        session.all(splitter.finish()).await?;
    } else if std::io::stdin().is_terminal() {
        session.told = true;
        session.converse(instance.name.as_str()).await?;
    } else {
        session.read_stdin().await?;
    }
    session.close().await;
    Ok(())
}

struct Session {
    server: Server,
    connection: Option<Conn>,
    format: Format,
    /// Whether somebody reads how each statement went.
    told: bool,
}

impl Session {
    async fn close(self) {
        if let Some(connection) = self.connection {
            // Only courtesy: all is done by now.
            let _ = connection.disconnect().await;
        }
    }

    async fn all(&mut self, statements: impl IntoIterator<Item = Statement>) -> Result<(), Failure> {
        for statement in statements {
            self.one(&statement).await?;
        }
        Ok(())
    }

    /// Runs one statement to its end; Ctrl-C ends it on the server, too.
    async fn one(&mut self, statement: &Statement) -> Result<(), Failure> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.server.connect().await?,
        };
        let id = connection.id();
        let ended = {
            let run = execute(&mut connection, statement, self.format, self.told);
            tokio::pin!(run);
            loop {
                tokio::select! {
                    biased;
                    ended = &mut run => break ended,
                    _ = tokio::signal::ctrl_c() => kill(&self.server, id).await,
                }
            }
        };
        if !ended.as_ref().is_err_and(|why| matches!(why, Trouble::Sql(why) if why.is_fatal())) {
            self.connection = Some(connection);
        }
        ended.map_err(|why| match why {
            Trouble::Sql(why) => Failure::failed(plain(&why)),
            // Whoever read it has read enough.
            Trouble::Out(why) if why.kind() == std::io::ErrorKind::BrokenPipe => Failure::Told(1),
            Trouble::Out(why) => Failure::failed(format!("the result cannot be written: {why}")),
        })
    }

    async fn read_stdin(&mut self) -> Result<(), Failure> {
        let mut lines = BufReader::new(tokio::io::stdin());
        let mut splitter = Splitter::default();
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = tokio::select! {
                biased;
                read = lines.read_until(b'\n', &mut line) => read,
                _ = tokio::signal::ctrl_c() => return Err(Failure::Told(1)),
            };
            match read {
                Ok(0) => break,
                Ok(_) => self.all(splitter.feed(&line)).await?,
                Err(why) => return Err(Failure::failed(format!("stdin cannot be read: {why}"))),
            }
        }
        self.all(splitter.finish()).await
    }

    /// Statements typed on a terminal: what fails is said, and the next one is asked for.
    async fn converse(&mut self, name: &str) -> Result<(), Failure> {
        let error = |why: ReadlineError| Failure::failed(format!("the terminal cannot be read: {why}"));
        let mut editor = rustyline::DefaultEditor::new().map_err(error)?;
        let first = format!("{name}> ");
        let more = format!("{:>1$}", "> ", first.len());
        let mut splitter = Splitter::default();
        anstream::eprintln!("Statements end with ; or \\G. Ctrl-C ends one that runs, Ctrl-D leaves.");
        loop {
            let prompt = if splitter.is_open() { &more } else { &first };
            // The editor blocks, and nothing else is to be done meanwhile.
            let line = match tokio::task::block_in_place(|| editor.readline(prompt)) {
                Ok(line) => line,
                Err(ReadlineError::Interrupted) => {
                    splitter.reset();
                    continue;
                }
                Err(ReadlineError::Eof) => return Ok(()),
                Err(why) => return Err(error(why)),
            };
            if !splitter.is_open() && matches!(line.trim().trim_end_matches(';'), "exit" | "quit" | "\\q") {
                return Ok(());
            }
            if !line.trim().is_empty() {
                // Without a history the session is still one.
                let _ = editor.add_history_entry(line.as_str());
            }
            for statement in splitter.feed(format!("{line}\n").as_bytes()) {
                if let Err(failure) = self.one(&statement).await {
                    failure.print(self.format == Format::Json);
                    break;
                }
            }
        }
    }
}

enum Trouble {
    Sql(mysql_async::Error),
    Out(std::io::Error),
}

impl From<mysql_async::Error> for Trouble {
    fn from(why: mysql_async::Error) -> Self {
        Trouble::Sql(why)
    }
}

impl From<std::io::Error> for Trouble {
    fn from(why: std::io::Error) -> Self {
        Trouble::Out(why)
    }
}

async fn execute(
    connection: &mut Conn,
    statement: &Statement,
    format: Format,
    told: bool,
) -> Result<(), Trouble> {
    let began = Instant::now();
    let mut warned = 0;
    let mut result = connection.query_iter(statement.text.as_slice()).await?;
    // Each result set, and each end without one.
    while let Some(columns) = result.columns() {
        let affected = result.affected_rows();
        warned = result.warnings();
        let last = result.is_empty();
        let mut rows = Vec::new();
        result.for_each(|row| rows.push(row.unwrap())).await?;
        let count = rows.len();
        if columns.is_empty() {
            tell(told, &format!("{affected} rows affected"), began);
            if last {
                break;
            }
            continue;
        }
        let mut out = std::io::stdout().lock();
        show::rows(&mut out, format, statement.vertical, &columns, rows)?;
        out.flush()?;
        tell(told, &format!("{count} rows"), began);
    }
    warned = warned.max(result.warnings());
    drop(result);
    if warned > 0 {
        let warnings: Vec<(String, u16, String)> = connection.query("SHOW WARNINGS").await?;
        for (level, number, text) in warnings {
            anstream::eprintln!("{} {number}: {text}", level.to_lowercase());
        }
    }
    Ok(())
}

fn tell(told: bool, what: &str, began: Instant) {
    if told {
        let what = what.strip_prefix("1 rows").map_or(what.to_owned(), |rest| format!("1 row{rest}"));
        anstream::eprintln!("{what} ({:.2} s)", began.elapsed().as_secs_f64());
    }
}

/// Ends the statement that runs on another connection.
async fn kill(server: &Server, id: u32) {
    anstream::eprintln!("^C: ending the statement");
    let ended = match server.connect().await {
        Ok(mut second) => second.query_drop(format!("KILL QUERY {id}")).await.map_err(|why| plain(&why)),
        Err(failure) => Err(failure.to_string()),
    };
    if let Err(why) = ended {
        anstream::eprintln!("it could not be ended: {why}");
    }
}
