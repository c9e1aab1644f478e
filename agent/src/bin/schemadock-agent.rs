//! The agent of one Docker host.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use schemadock_agent::containers::docker::Docker;
use schemadock_agent::disk::local::Local;
use schemadock_agent::host::{Notice, Parts, run};
use schemadock_agent::mysqld::adapter::Adapter;
use schemadock_agent::settings::Given;
use schemadock_schema::Timestamp;
use schemadock_schema::size::Resources;
use schemadock_store::etcd::Etcd;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let given = Given::parse();
    log();
    end_with_a_panic();
    // One thread: all of it waits, hardly anything computes; what blocks (the disk) has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.context("the runtime cannot be started").and_then(|runtime| {
        let ended = runtime.block_on(serve(given));
        runtime.shutdown_timeout(Duration::from_secs(1));
        ended
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("schemadock-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A panic ends the agent, so that it is started anew: one task less would leave a server unattended, unseen.
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
    let uid = nix::unistd::geteuid();
    let gid = nix::unistd::getegid();
    let name = nix::unistd::gethostname().unwrap_or_default();
    let settings = given.resolve(&name.to_string_lossy(), uid.as_raw(), gid.as_raw())?;
    let stop = CancellationToken::new();
    stop_on_signals(&stop)?;
    let store = Etcd::connect(&settings.etcd, Duration::from_secs(3)).await?;
    let containers = Docker::connect(&settings.docker, Duration::from_secs(5));
    let disk = Local::open(&settings.state_dir, &settings.run_dir, settings.mysqld_user)?;
    tracing::info!(host = %settings.host, address = settings.address, etcd = settings.etcd, "the agent starts");
    let parts = Parts {
        store: Arc::new(store),
        containers: Arc::new(containers),
        mysqld: Arc::new(Adapter::new()),
        disk: Arc::new(disk),
        now: Timestamp::now(),
        machine: machine()?,
        seed: rand::random(),
        notifier: Box::new(notify),
        settings,
    };
    run(parts, stop).await?;
    tracing::info!("the agent ends; databases run on");
    Ok(())
}

fn notify(notice: Notice) {
    let state = match notice {
        Notice::Ready => sd_notify::NotifyState::Ready,
        Notice::Alive => sd_notify::NotifyState::Watchdog,
    };
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[state]);
}

fn stop_on_signals(stop: &CancellationToken) -> anyhow::Result<()> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).context("signals cannot be handled")?;
        let stop = stop.clone();
        tokio::spawn(async move {
            signals.recv().await;
            stop.cancel();
        });
    }
    Ok(())
}

/// Memory and cores of this machine.
fn machine() -> anyhow::Result<Resources> {
    let text = std::fs::read_to_string("/proc/meminfo").context("/proc/meminfo cannot be read")?;
    let kilobytes: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok())
        .context("/proc/meminfo has no MemTotal")?;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    Ok(Resources { memory: kilobytes * 1024, cpus, disk: None })
}
