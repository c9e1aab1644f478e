//! What the host reports of itself: `P/hosts/<host>`, written when it changes.

use std::time::Duration;

use schemadock_agent_plan::observed::DaemonSeen;
use schemadock_schema::InstanceName;
use schemadock_schema::host::{Host, HostWarning, RetiredData};
use schemadock_schema::proposal::{Proposal, Write};
use schemadock_schema::size::{GIB, Resources};
use schemadock_schema::status::{DataReport, StoreReport, StoreState};
use schemadock_store::Committed;
use tokio::time::Instant;

use super::Loop;
use crate::context::Context;

/// How often what costs a look is looked at.
const EVERY: Duration = Duration::from_secs(10);

/// Writes the host's document when it changes.
pub(super) struct Reporter {
    machine: Resources,
    written: Option<Host>,
    looked_at: Option<Instant>,
    /// What the instances' data were at the last look: a change may have set some aside, or taken some up.
    data: Vec<(InstanceName, DataReport)>,
    retired: Vec<RetiredData>,
    free_disk: Option<u64>,
    daemon: Result<DaemonSeen, String>,
}

impl Reporter {
    pub(super) fn new(_ctx: &Context, machine: Resources) -> Reporter {
        Reporter {
            machine,
            written: None,
            looked_at: None,
            data: Vec::new(),
            retired: Vec::new(),
            free_disk: None,
            daemon: Err("not asked yet".to_owned()),
        }
    }

    pub(super) async fn report(&mut self, ctx: &Context, state: &Loop) {
        let data: Vec<(InstanceName, DataReport)> = state
            .instances()
            .filter_map(|instance| Some((instance.name().clone(), instance.status()?.data)))
            .collect();
        if self.looked_at.is_none_or(|at| at.elapsed() >= EVERY) || data != self.data {
            self.data = data;
            self.look(ctx).await;
        }
        let host = self.compose(ctx, state);
        if self.written.as_ref().is_some_and(|written| same(written, &host)) {
            return;
        }
        let key = ctx.keys.host(&ctx.settings.host);
        let proposal = Proposal { writes: vec![Write::document(key, &host)], ..Proposal::default() };
        if let Ok(Committed::Written { .. }) = ctx.write(&proposal).await {
            self.written = Some(host);
        }
    }

    async fn look(&mut self, ctx: &Context) {
        self.looked_at = Some(Instant::now());
        self.free_disk = ctx.disk.free_bytes().await.ok();
        self.daemon = ctx.containers.daemon().await.map_err(|error| error.to_string());
        if let Ok(retired) = ctx.disk.retired().await {
            self.retired = retired
                .into_iter()
                .map(|retired| RetiredData {
                    instance: retired.instance,
                    bytes: retired.bytes,
                    since: retired.since,
                })
                .collect();
        }
    }

    fn compose(&self, ctx: &Context, state: &Loop) -> Host {
        let settings = &ctx.settings;
        let sizes = state.instances().filter_map(|instance| instance.status()?.size);
        let allocated = sizes.fold(Resources::default(), |sum, size| Resources {
            memory: sum.memory + size.memory,
            cpus: sum.cpus + size.cpus,
            disk: None,
        });
        let view = ctx.mirror.view();
        Host {
            name: settings.host.clone(),
            address: settings.address.clone(),
            zone: settings.zone.clone(),
            labels: settings.labels.clone(),
            capacity: Resources { disk: self.free_disk, ..ctx.defaults.offered },
            allocated,
            free_disk: self.free_disk,
            retired: self.retired.clone(),
            instances: state.instances().count() as u32,
            warnings: self.warnings(ctx, state),
            store: view.store.clone().unwrap_or(StoreReport {
                state: StoreState::Ok,
                expected: state.record.fleet.clone(),
                found: None,
            }),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            docker_version: self.daemon.as_ref().ok().map(|daemon| daemon.version.clone()),
            updated_at: ctx.clock.now(),
        }
    }

    fn warnings(&self, ctx: &Context, state: &Loop) -> Vec<HostWarning> {
        let mut warnings = Vec::new();
        let mut warn = |kind: &str, message: String, hint: &str| {
            warnings.push(HostWarning { kind: kind.to_owned(), message, hint: hint.to_owned() });
        };
        match &self.daemon {
            Err(error) if self.looked_at.is_some() => {
                warn("docker", error.clone(), "start or mend the Docker daemon of this host");
            }
            Ok(daemon) if !daemon.live_restore => warn(
                "live-restore",
                "a restart of the Docker daemon stops every database of this host".to_owned(),
                "set \"live-restore\": true in /etc/docker/daemon.json and reload the daemon",
            ),
            _ => {}
        }
        if let Ok(daemon) = &self.daemon
            && !daemon.limits
        {
            warn(
                "limits",
                "the Docker daemon cannot limit memory or CPU".to_owned(),
                "enable the kernel's memory and cpu control groups",
            );
        }
        if self.free_disk.is_some_and(|free| free < GIB) {
            let message = format!("less than 1 GiB is free below {}", ctx.settings.state_dir.display());
            warn("disk", message, "free some space; `schemadock purge` destroys retired data");
        }
        if ctx.defaults.offered.memory > self.machine.memory {
            warn(
                "memory",
                "the agent offers more memory than the machine has".to_owned(),
                "lower the agent's setting `memory`",
            );
        }
        for (name, why) in state.broken() {
            warn("record", format!("{name}: {why}"), "mend or remove the file, then restart the agent");
        }
        warnings
    }
}

/// Free disk within 5 % and the time do not count.
fn same(before: &Host, now: &Host) -> bool {
    let (old, new) = (before.free_disk.unwrap_or(0), now.free_disk.unwrap_or(0));
    let mut timeless = now.clone();
    if old.abs_diff(new) * 20 < old.max(1) {
        timeless.free_disk = before.free_disk;
        timeless.capacity.disk = before.capacity.disk;
    }
    timeless.updated_at = before.updated_at;
    timeless == *before
}
