//! Steps of the converge lane on a running server: identity, settings, limits, seeds.

use std::collections::BTreeMap;
use std::time::Duration;

use schemadock_agent_plan::config::with_setting;
use schemadock_agent_plan::converge::wanted_config;
use schemadock_agent_plan::observed::{CloneSeen, Seen, Variables, Work};
use schemadock_agent_plan::record::DataOrigin;
use schemadock_agent_plan::step::ConvergeStep as Step;
use schemadock_agent_plan::wish::Wish;
use schemadock_schema::InstanceName;
use schemadock_schema::known::{Known, WhyUnknown};
use schemadock_schema::secrets::replication_user;
use schemadock_schema::status::SeedReport;
use tokio::time::Instant;

use super::converge::Lane;
use crate::context::StepError;
use crate::disk::InstanceFile;
use crate::mysqld::{Endpoint, Login, MysqlError, Session, SourceSpec};

/// How often settings of a running server are verified.
const SETTINGS_EVERY: Duration = Duration::from_secs(3);
/// MySQL: the variable can only be set at the start.
const ER_INCORRECT_GLOBAL_LOCAL_VAR: u16 = 1238;

impl Lane {
    async fn own(&mut self, wish: &Wish) -> Result<&mut Box<dyn Session>, StepError> {
        if self.session.is_none() {
            self.session = Some(self.instance.session(wish).await?);
        }
        Ok(self.session.as_mut().expect("just set"))
    }

    /// Settings that differ, and how a CLONE stands.
    pub(super) async fn look_at_server(&mut self, wish: &Wish) {
        let (_, _, seen) = self.instance.snapshot();
        let cloning = matches!(seen.record.data, DataOrigin::Cloning { .. });
        if cloning {
            let clone = match self.own(wish).await {
                Ok(session) => session.clone_progress().await.map_err(StepError::from),
                Err(error) => Err(error),
            };
            let clone = match clone {
                Ok(clone) => Known::Present(clone),
                Err(error) => {
                    self.session = None;
                    Known::Unknown(WhyUnknown::Error(error.to_string()))
                }
            };
            if let (DataOrigin::Cloning { donor, since }, Known::Present(clone)) = (&seen.record.data, &clone)
            {
                let seconds = self.instance.ctx.clock.now().duration_since(*since).as_secs_f64();
                self.instance.note_seed(Some(progress(donor, clone, seconds)));
            }
            self.instance.state().seen.clone = clone;
            return;
        }
        if self.settings_at.is_some_and(|at| at.elapsed() < SETTINGS_EVERY) {
            return;
        }
        let Some(wanted) = wish.desired().and_then(|desired| {
            let config = wanted_config(desired, &seen)?;
            let mut wanted = config.verified.clone();
            wanted.extend(desired.mysql.clone());
            if !wanted.contains_key("innodb_buffer_pool_size") {
                wanted.insert("innodb_buffer_pool_size".to_owned(), desired.buffer_pool.to_string());
            }
            Some(wanted)
        }) else {
            return;
        };
        let differing = match self.own(wish).await {
            Ok(session) => differing(session, &wanted).await.map_err(StepError::from),
            Err(error) => Err(error),
        };
        let differing = match differing {
            Ok(found) => {
                self.settings_at = Some(Instant::now());
                let triple = |(name, found): (String, String)| {
                    let wanted = wanted.get(&name).cloned().unwrap_or_default();
                    (name, wanted, found)
                };
                Known::Present(found.into_iter().map(triple).collect())
            }
            Err(error) => {
                self.session = None;
                Known::Unknown(WhyUnknown::Error(error.to_string()))
            }
        };
        self.instance.state().seen.differing = differing;
    }

    /// Does a step on a running server; `true`: somebody keeps undoing it.
    pub(super) async fn act_on_running(
        &mut self,
        step: &Step,
        wish: &Wish,
        seen: &Seen,
    ) -> Result<bool, StepError> {
        let instance = self.instance.clone();
        match step {
            Step::KeepIdentity { server_uuid } => {
                instance.update_record(|record| record.server_uuid = Some(server_uuid.clone())).await?;
            }
            Step::KeepGoodConfig => {
                let disk = &instance.ctx.disk;
                disk.write_file(&instance.name, InstanceFile::GoodConfig, seen.config.as_deref()).await?;
                disk.write_file(&instance.name, InstanceFile::Init, None).await?;
            }
            Step::SetVariable { name, value, found } => {
                return self.set_variable(wish, seen, name, value.as_deref(), found.as_deref()).await;
            }
            Step::SetLimits => {
                let desired = wish.desired().ok_or(StepError::Changed("the target"))?;
                let container = seen.container.present().ok_or(StepError::Changed("the container"))?;
                instance.ctx.containers.set_limits(&container.id, &desired.limits).await?;
                instance.ctx.look_at_containers().await;
                instance.tell(wish, "resized", format!("its size is {}", describe(&desired.limits)));
            }
            Step::Seed { donor, address, port } => self.seed(wish, seen, donor, address, *port).await?,
            Step::FinishSeed => {
                let Some(server) = seen.server.present() else {
                    return Err(StepError::Changed("the server"));
                };
                let uuid = server.server_uuid.clone();
                // Flags came with the data, set by the donor's agent.
                let frozen = wish.desired().map(|desired| desired.frozen.clone()).unwrap_or_default();
                instance
                    .update_record(|record| {
                        record.data = DataOrigin::Own;
                        record.frozen.extend(frozen);
                        record.server_uuid = Some(uuid);
                    })
                    .await?;
                instance.note_seed(None);
                instance.state().seen.clone = Known::Unknown(WhyUnknown::NotYet);
                let donor = match &seen.record.data {
                    DataOrigin::Cloning { donor, .. } => donor.to_string(),
                    _ => String::new(),
                };
                instance.tell(wish, "seeded", format!("its data came from {donor} by CLONE"));
            }
            _ => unreachable!("steps before the server runs are done elsewhere"),
        }
        Ok(false)
    }

    async fn set_variable(
        &mut self,
        wish: &Wish,
        seen: &Seen,
        name: &str,
        value: Option<&str>,
        found: Option<&str>,
    ) -> Result<bool, StepError> {
        let instance = self.instance.clone();
        let result = self.own(wish).await?.set_variable(name, value).await;
        match result {
            Ok(()) => {}
            Err(error) if error.number().is_some() => {
                let reason = match error.number() {
                    Some(ER_INCORRECT_GLOBAL_LOCAL_VAR) => {
                        "it can only be set at the server's start".to_owned()
                    }
                    _ => error.to_string(),
                };
                instance.state().seen.unsettable.insert(name.to_owned(), reason);
                return Ok(false);
            }
            Err(error) => {
                self.session = None;
                return Err(error.into());
            }
        }
        self.settings_at = None;
        instance.state().seen.differing = Known::Unknown(WhyUnknown::NotYet);
        if let Some(found) = found {
            return Ok(instance.mended(wish, "SetVariable", found));
        }
        let prefix = format!("{name}=");
        let line =
            seen.config.as_deref().and_then(|text| text.lines().find(|line| line.starts_with(&prefix)));
        instance
            .update_record(|record| {
                if let Some(in_force) = &record.in_force {
                    record.in_force = Some(with_setting(in_force, name, line));
                }
            })
            .await?;
        instance.tell(wish, "set", format!("{name} is {} now", value.unwrap_or("at its default")));
        Ok(false)
    }

    async fn seed(
        &mut self,
        wish: &Wish,
        seen: &Seen,
        donor: &InstanceName,
        address: &str,
        port: u16,
    ) -> Result<(), StepError> {
        let instance = self.instance.clone();
        let secrets =
            wish.source.as_ref().and_then(|source| source.secrets.present()).or(wish.grant.secrets.present());
        let secrets = secrets.ok_or(StepError::Changed("the credentials"))?.clone();
        let server_id = seen.record.server_id.ok_or(StepError::Changed("the server id"))?;
        // Tables that a CLONE leaves out make it refuse (their rows would be missing, silently).
        let login = Login::admin(&secrets);
        let endpoint = Endpoint::Tcp { host: address.to_owned(), port };
        let mut at_donor = instance.ctx.mysqld.connect(&endpoint, &login, Duration::from_secs(2)).await?;
        let emptied = at_donor.tables_that_clone_empties().await?;
        if !emptied.is_empty() {
            return Err(StepError::Refused(format!(
                "not seeded: a CLONE would leave out the rows of {} on {donor}; convert these tables to InnoDB",
                emptied.join(", ")
            )));
        }
        drop(at_donor);
        let since = instance.ctx.clock.now();
        let cloning = DataOrigin::Cloning { donor: donor.clone(), since };
        instance.update_record(|record| record.data = cloning).await?;
        let mut session = instance.session(wish).await?;
        session.set_super_read_only(false, Duration::from_secs(1)).await?;
        session.set_clone_donors(&format!("{address}:{port}")).await?;
        instance.state().seen.seed = Work::Running;
        let again = matches!(&seen.record.data, DataOrigin::Cloning { donor: before, .. } if before == donor);
        if !again {
            self.seed_delays.reset();
            instance.tell(wish, "seeding", format!("its data come from {donor} by CLONE"));
        }
        let pause = self.seed_delays.next_delay();
        let spec = SourceSpec {
            host: address.to_owned(),
            port,
            user: replication_user(server_id),
            password: secrets.replication,
        };
        tokio::spawn(async move {
            let ended = tokio::select! {
                biased;
                () = instance.stop.cancelled() => return,
                ended = session.clone_from(&spec) => ended,
            };
            if ended.is_err() {
                // Closed again until the next try (L1); where that fails, so does the next try's login.
                let _ = session.set_super_read_only(true, Duration::from_secs(1)).await;
            }
            drop(session);
            if let Err(error) = &ended {
                // A donor that refuses would else be asked again at once, without an end.
                instance.state().seen.seed = Work::Failed(error.to_string());
                instance.failed("Seed", &StepError::Refused(error.to_string())).await;
                tokio::select! {
                    biased;
                    () = instance.stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
            instance.state().seen.seed = Work::Idle;
            instance.wake_converge.notify_one();
        });
        Ok(())
    }
}

/// Values that are not as wished. The server rounds the buffer pool up to whole units of its own.
async fn differing(
    session: &mut Box<dyn Session>,
    wanted: &BTreeMap<String, String>,
) -> Result<Variables, MysqlError> {
    const POOL: &str = "innodb_buffer_pool_size";
    let mut found = session.differing(wanted).await?;
    if let Some(shown) = found.get(POOL).and_then(|text| text.parse::<u64>().ok()) {
        let units =
            session.variables(&["innodb_buffer_pool_chunk_size", "innodb_buffer_pool_instances"]).await?;
        let unit: u64 = units.values().filter_map(|text| text.parse::<u64>().ok()).product();
        let asked = wanted.get(POOL).and_then(|text| bytes(text)).unwrap_or(0);
        if shown >= asked && shown - asked < unit {
            found.remove(POOL);
        }
    }
    Ok(found)
}

/// An amount as the server reads it: `K`, `M`, `G` and `T` are powers of 1024.
fn bytes(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let shift = ["", "K", "M", "G", "T"].iter().position(|own| unit.eq_ignore_ascii_case(own))?;
    digits.parse::<u64>().ok()?.checked_mul(1 << (10 * shift))
}

fn describe(limits: &schemadock_schema::size::Resources) -> String {
    format!("{} and {:.2} cores", schemadock_schema::size::format_bytes(limits.memory), limits.cpus)
}

fn progress(donor: &InstanceName, clone: &CloneSeen, seconds: f64) -> SeedReport {
    let known = clone.bytes_total > 0;
    let percent = known.then(|| (clone.bytes as f64 / clone.bytes_total as f64 * 100.0).min(100.0));
    let eta = (known && clone.bytes > 0 && seconds > 0.0).then(|| {
        let pace = clone.bytes as f64 / seconds;
        (clone.bytes_total.saturating_sub(clone.bytes) as f64 / pace).round() as u64
    });
    SeedReport {
        method: "clone".to_owned(),
        donor: donor.clone(),
        percent,
        bytes: Some(clone.bytes),
        bytes_total: known.then_some(clone.bytes_total),
        eta_seconds: eta,
    }
}
