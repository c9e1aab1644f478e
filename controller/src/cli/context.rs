//! What every command has at hand.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use schemadock_schema::Timestamp;
use schemadock_schema::keys::Keys;
use schemadock_store::Store;
use schemadock_store::etcd::Etcd;
use tokio::sync::OnceCell;

use super::Failure;

/// How long one call to etcd may take.
pub const ETCD_DEADLINE: Duration = Duration::from_secs(5);

/// What the output is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For scripts.
    Json,
}

/// `-o table|json`, for commands to flatten into their arguments.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct OutputArg {
    /// For people or for scripts.
    #[arg(short = 'o', long = "output", value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Output,
}

impl OutputArg {
    /// Whether scripts read it.
    pub fn json(&self) -> bool {
        self.output == Output::Json
    }
}

/// What every command has at hand.
pub struct Context {
    /// Where etcd is.
    pub endpoints: Vec<String>,
    /// Where documents stand.
    pub keys: Keys,
    /// Who asks: `user@machine`.
    pub who: String,
    store: OnceCell<Arc<dyn Store>>,
}

impl Context {
    /// Nothing is asked of etcd before the first [`Context::store`].
    pub fn new(endpoints: Vec<String>, prefix: &str) -> Self {
        Self { endpoints, keys: Keys::new(prefix), who: who(), store: OnceCell::new() }
    }

    /// The store, connected at the first call.
    ///
    /// # Errors
    /// When etcd cannot be reached (exit code 3).
    pub async fn store(&self) -> Result<Arc<dyn Store>, Failure> {
        let connect = || async {
            let etcd =
                Etcd::connect(&self.endpoints.join(","), ETCD_DEADLINE).await.map_err(Failure::Store)?;
            Ok::<Arc<dyn Store>, Failure>(Arc::new(etcd))
        };
        self.store.get_or_try_init(connect).await.cloned()
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Whether somebody can be asked.
    pub fn can_ask(&self) -> bool {
        std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }

    /// Asks a question on the terminal; without one the answer must have been given by `--yes`.
    ///
    /// # Errors
    /// Without a terminal (exit code 2), or when the answer is no (exit code 1).
    pub fn confirm(&self, question: &str, yes: bool) -> Result<(), Failure> {
        if yes {
            return Ok(());
        }
        if !self.can_ask() {
            return Err(Failure::usage(format!("{question} Without a terminal this needs --yes.")));
        }
        let asked = dialoguer::Confirm::new().with_prompt(question).default(false).interact();
        match asked {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::failed("nothing was changed".to_owned())),
            Err(why) => {
                Err(Failure::failed(format!("the answer could not be read: {why}; nothing was changed")))
            }
        }
    }
}

fn who() -> String {
    let user =
        std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).ok().filter(|user| !user.is_empty());
    let user = user.unwrap_or_else(|| format!("uid{}", nix::unistd::getuid()));
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let machine = if machine.trim().is_empty() { "unknown" } else { machine.trim() };
    format!("{user}@{machine}")
}

/// Reads `90s`, `2m`, `1h` or a number of seconds.
///
/// # Errors
/// A sentence that names the accepted forms.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let error = || format!("{text:?} is no time; expected for example 90s, 2m, 1h or 500ms");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(error()),
    };
    let seconds = number.parse::<f64>().map_err(|_| error())? * factor;
    Duration::try_from_secs_f64(seconds).map_err(|_| error())
}
