//! The controller of a fleet: one of any number of copies.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use schemadock_controller::office::{Settings, copy, run};
use schemadock_schema::Timestamp;
use schemadock_schema::keys::Keys;
use schemadock_store::etcd::Etcd;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// The controller of a fleet: carries out operations on whole clusters, and keeps who votes.
///
/// Any number of copies can run; one is in office.
#[derive(Debug, Parser)]
#[command(name = "schemadock-controller", version)]
struct Given {
    /// etcd, as URLs with commas between them.
    #[arg(long, env = "SCHEMADOCK_ETCD", default_value = "http://127.0.0.1:2379", value_name = "URL")]
    etcd: String,
    /// What all keys begin with.
    #[arg(long, env = "SCHEMADOCK_PREFIX", default_value = "/schemadock")]
    prefix: String,
    /// Where it remembers which fleet it serves.
    #[arg(
        long,
        env = "SCHEMADOCK_STATE_DIR",
        default_value = "/var/lib/schemadock-controller",
        value_name = "DIR"
    )]
    state_dir: PathBuf,
    /// The name of this machine; its own by default.
    #[arg(long, env = "SCHEMADOCK_HOST")]
    host: Option<String>,
    /// Factor on waits and bounds; 1 in earnest, less in tests.
    #[arg(long, env = "SCHEMADOCK_TIME_SCALE", default_value_t = 1.0, hide = true)]
    time_scale: f64,
}

fn main() -> ExitCode {
    let given = Given::parse();
    log();
    end_with_a_panic();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.context("the runtime cannot be started").and_then(|runtime| {
        let ended = runtime.block_on(serve(given));
        runtime.shutdown_timeout(Duration::from_secs(1));
        ended
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("schemadock-controller: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A panic ends the process, so that another copy takes over and this one is started anew.
fn end_with_a_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::exit(101);
    }));
}

/// For people on a terminal, JSON under systemd.
fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.json().init();
    } else {
        builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init();
    }
}

async fn serve(given: Given) -> anyhow::Result<()> {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        anyhow::bail!("the TLS provider was installed twice");
    }
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stopped = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stopped.cancel();
    });
    let store = Arc::new(Etcd::connect(&given.etcd, Duration::from_secs(3)).await?);
    let name = nix::unistd::gethostname().unwrap_or_default();
    let host = given.host.unwrap_or_else(|| name.to_string_lossy().into_owned());
    let now = Timestamp::now();
    let settings = Settings {
        copy: copy(host, now),
        state_dir: Some(given.state_dir),
        time_scale: given.time_scale,
        now,
        seed: rand::random(),
        until: None,
    };
    tracing::info!(copy = settings.copy.id, etcd = given.etcd, "the controller starts");
    let ready = || {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        tracing::info!("follows the fleet");
    };
    run(store, Keys::new(&given.prefix), settings, ready, stop).await?;
    tracing::info!("the controller ends");
    Ok(())
}
