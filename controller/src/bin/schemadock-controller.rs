//! The controller. A stand-in until the service joins: it waits to be ended.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// The controller of a fleet.
#[derive(Debug, Parser)]
#[command(name = "schemadock-controller", version)]
struct Given {
    /// Where etcd is.
    #[arg(long, env = "SCHEMADOCK_ETCD", default_value = "http://127.0.0.1:2379", value_name = "URL")]
    etcd: String,
    /// What all keys begin with.
    #[arg(long, env = "SCHEMADOCK_PREFIX", default_value = "/schemadock")]
    prefix: String,
    /// Where it keeps what it must remember.
    #[arg(long, env = "SCHEMADOCK_STATE_DIR", default_value = "/var/lib/schemadock-controller")]
    state_dir: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let given = Given::parse();
    eprintln!("{given:?}: this build cannot carry out operations; it waits to be ended");
    match signal(SignalKind::terminate()) {
        Ok(mut ended) => {
            ended.recv().await;
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("schemadock-controller: signals cannot be handled: {why}");
            ExitCode::FAILURE
        }
    }
}
