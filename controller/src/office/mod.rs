//! The controller: one copy of any number is in office, and carries out what the plan says.
//!
//! *Expected flow*: [`run`] follows what etcd holds by watch, takes the office when it is free, and writes what
//! [`plan`](schemadock_controller_plan::plan::plan) says whenever something has changed or is due.
//!
//! *Guarantees*: every transaction compares the office key's creation and the fleet's: a copy that has lost its office,
//! frozen or cut off, writes nothing any more. What is being done is never kept here; whoever comes next goes on from
//! what etcd holds. While etcd is away nothing is done.

mod election;
mod memory;
mod planner;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemadock_controller_plan::since::Bounds;
use schemadock_schema::Timestamp;
use schemadock_schema::keys::Keys;
use schemadock_schema::operation::ControllerCopy;
use schemadock_store::clock::Clock;
use schemadock_store::mirror::Mirror;
use schemadock_store::{Store, StoreError};
use tokio_util::sync::CancellationToken;

use memory::Memory;
use planner::Planner;

/// What one copy is run with.
pub struct Settings {
    /// Who it is: the document `P/controllers/<id>`.
    pub copy: ControllerCopy,
    /// Where it remembers which fleet it serves; a passing copy remembers nothing.
    pub state_dir: Option<PathBuf>,
    /// Factor on bounds that tests scale down.
    pub time_scale: f64,
    /// The time at the start.
    pub now: Timestamp,
    /// For jitter.
    pub seed: u64,
    /// Where a copy is to end as soon as this operation is over.
    pub until: Option<String>,
}

/// Why a controller ended.
#[derive(Debug, thiserror::Error)]
pub enum OfficeError {
    /// What it remembers cannot be read or written.
    #[error("the controller's memory at {path} cannot be used: {why}")]
    Memory {
        /// Where.
        path: String,
        /// Why.
        why: String,
    },
    /// The store did not answer at the start.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another copy is in office.
    #[error("the controller {0} is in office: it does what is asked")]
    Taken(String),
}

/// Runs one copy until `stop` is cancelled, or the operation that it is for is over. `ready` is called once it follows
/// what etcd holds.
///
/// # Errors
/// When its memory cannot be used; or, for a copy that is for one operation, when another one is in office.
pub async fn run(
    store: Arc<dyn Store>,
    keys: Keys,
    settings: Settings,
    ready: impl FnOnce(),
    stop: CancellationToken,
) -> Result<(), OfficeError> {
    let memory = Memory::open(settings.state_dir.as_deref())?;
    let mirror = Mirror::start(store.clone(), keys.clone(), memory.gate().clone(), settings.seed);
    let clock = Clock::start(settings.now);
    let bounds = Bounds::scaled(settings.time_scale);
    let planner = Planner::new(store, keys, mirror, clock, bounds, memory, settings);
    planner.run(ready, stop).await
}

/// Holds the office in this process until an operation is over: for fleets without a controller.
///
/// # Errors
/// As [`run`].
pub async fn hold_office_until(
    store: Arc<dyn Store>,
    keys: Keys,
    who: String,
    now: Timestamp,
    operation: String,
) -> Result<(), OfficeError> {
    let settings = Settings {
        copy: copy(who, now),
        state_dir: None,
        time_scale: 1.0,
        now,
        seed: u64::from(std::process::id()),
        until: Some(operation),
    };
    run(store, keys, settings, || {}, CancellationToken::new()).await
}

/// What a copy says of itself.
pub fn copy(host: String, since: Timestamp) -> ControllerCopy {
    ControllerCopy {
        id: uuid::Uuid::new_v4().to_string(),
        host,
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        since,
    }
}

/// How long the office, and the sign of life, outlive their holder.
const TTL: Duration = Duration::from_secs(5);
/// How often the lease is kept alive.
const KEPT_EVERY: Duration = Duration::from_secs(1);
