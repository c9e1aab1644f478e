//! Steps of the converge lane up to the start of the server, and its end.

use std::time::Duration;

use schemadock_agent_plan::accounts;
use schemadock_agent_plan::config::MOUNT;
use schemadock_agent_plan::converge::judgement;
use schemadock_agent_plan::desired::Desired;
use schemadock_agent_plan::observed::{Seen, Stopping, TemplateSeen, Work};
use schemadock_agent_plan::record::{DataOrigin, Record, RejectedConfig};
use schemadock_agent_plan::step::ConvergeStep as Step;
use schemadock_agent_plan::wish::{Wanted, Wish};
use schemadock_schema::known::Known;
use schemadock_schema::leadership::Leadership;
use schemadock_schema::proposal::{Guard, Write};
use schemadock_schema::secrets::Secrets;

use super::Instance;
use super::converge::{Lane, template_key};
use crate::containers::{ContainerError, Errand};
use crate::context::StepError;
use crate::disk::{InstanceFile, RetiredWhy};

/// How long the standing lane may take to close a server before it is ended anyway.
const CLOSES_WITHIN: Duration = Duration::from_secs(15);
/// How long a clean shutdown may take before it becomes a kill.
const GRACE_SECONDS: u64 = 60;

impl Lane {
    /// Does a step; `true`: somebody keeps undoing it.
    pub(super) async fn act(&mut self, step: &Step, wish: &Wish, seen: &Seen) -> Result<bool, StepError> {
        let instance = self.instance.clone();
        let ctx = &instance.ctx;
        let desired = wish.desired();
        let wanted = || desired.ok_or(StepError::Changed("the target"));
        match step {
            Step::TakeServerId => self.take_server_id().await?,
            Step::MakeSecrets => self.make_secrets(wish).await?,
            Step::PullImage => self.pull(wanted()?),
            Step::MakeTemplate => self.make_template(wanted()?, seen),
            Step::AdoptData => {
                let uuid = seen.data.present().and_then(|data| data.server_uuid.clone());
                instance
                    .update_record(|record| {
                        record.data = DataOrigin::Own;
                        record.server_uuid = uuid;
                    })
                    .await?;
                instance.tell(
                    wish,
                    "adopted",
                    "its data were recognised by the server_uuid that etcd remembers",
                );
            }
            Step::CopyTemplate => self.copy_template(seen).await?,
            Step::TakeUp { name } => {
                let retired = ctx.disk.retired().await?;
                let retired = retired.iter().find(|r| r.instance == instance.name && r.name == *name);
                ctx.disk.take_up(retired.ok_or(StepError::Changed("retired data"))?).await?;
                instance.reload_record().await?;
                instance.tell(wish, "taken-up", format!("its data of {name} were taken up again"));
            }
            Step::Replace { why } => {
                instance.update_record(|record| record.replacing = Some(why.clone())).await?;
                instance.tell(
                    wish,
                    "replacing",
                    format!("its data are set aside and made anew: {}", why.why),
                );
            }
            Step::KeepData { why } => {
                instance.update_record(|record| record.replacing = None).await?;
                instance.tell(
                    wish,
                    "kept",
                    format!("its data were to be made anew ({why}) and are kept: it leads now"),
                );
            }
            Step::SetAside => self.set_aside(wish, seen).await?,
            Step::Validate { config } => self.validate(wanted()?, seen, &config.render()).await?,
            Step::WriteConfig { config } => {
                ctx.disk.write_file(&instance.name, InstanceFile::Config, Some(&config.render())).await?;
                instance.state().seen.unsettable.clear();
            }
            Step::RestoreConfig { error } => self.restore_config(wanted()?, seen, error).await?,
            Step::WriteInit => {
                let secrets = wish.grant.secrets.present().ok_or(StepError::Changed("the credentials"))?;
                let text = accounts::first_start(&accounts::wanted(secrets, wish.followers.iter().copied()));
                ctx.disk.write_file(&instance.name, InstanceFile::Init, Some(&text)).await?;
            }
            Step::CreateContainer => {
                let owner = ctx.owner.borrow().clone().ok_or(StepError::Changed("the fleet"))?;
                let spec = self.spec(wanted()?, wish);
                ctx.containers.create(&owner, &spec).await?;
                ctx.look_at_containers().await;
                // One that we have not removed ourselves was taken away.
                if seen.record.in_force.is_some() && seen.stopping == Stopping::No {
                    return Ok(instance.mended(wish, "CreateContainer", "its container was gone"));
                }
            }
            Step::StartContainer { found } => {
                self.start(seen).await?;
                return Ok(found
                    .as_deref()
                    .is_some_and(|found| instance.mended(wish, "StartContainer", found)));
            }
            Step::Unpause => {
                let container = seen.container.present().ok_or(StepError::Changed("the container"))?;
                ctx.containers.unpause(&container.id).await?;
                ctx.look_at_containers().await;
                return Ok(instance.mended(wish, "Unpause", "its container was paused"));
            }
            Step::Stop { why } => self.stop(wish, why).await?,
            Step::EndLost => {
                if let Some(process) = seen.process.present() {
                    ctx.disk.kill_process(process).await?;
                    let found =
                        format!("mysqld ran as process {} without Docker and did not answer", process.pid);
                    return Ok(instance.mended(wish, "EndLost", &found));
                }
            }
            Step::RemoveContainer { .. } => {
                if let Some(container) = seen.container.present() {
                    ctx.containers.remove(&container.id).await?;
                }
                ctx.look_at_containers().await;
            }
            Step::Release => self.release(wish).await?,
            Step::Forget => self.forget(wish).await?,
            Step::KeepIdentity { .. }
            | Step::KeepGoodConfig
            | Step::SetVariable { .. }
            | Step::SetLimits
            | Step::Seed { .. }
            | Step::FinishSeed => return self.act_on_running(step, wish, seen).await,
        }
        Ok(false)
    }

    /// Create-if-absent under a random number: an id taken and then lost by a crash is never used.
    async fn take_server_id(&mut self) -> Result<(), StepError> {
        let ctx = &self.instance.ctx;
        let server_id = ctx.draw_server_id();
        let key = ctx.keys.id(server_id);
        let taken = serde_json::json!({ "instance": self.instance.name, "at": ctx.clock.now() });
        ctx.commit(vec![Write::document(key.clone(), &taken)], vec![Guard::Absent { key }]).await?;
        self.instance.update_record(|record| record.server_id = Some(server_id)).await
    }

    // Passwords must not be guessable from a seed.
    #[allow(clippy::disallowed_methods)]
    async fn make_secrets(&mut self, wish: &Wish) -> Result<(), StepError> {
        let ctx = &self.instance.ctx;
        let cluster = wish.grant.cluster.as_ref().ok_or(StepError::Changed("the cluster"))?;
        let password = || {
            use rand::RngExt as _;
            rand::rng().sample_iter(rand::distr::Alphanumeric).take(32).map(char::from).collect::<String>()
        };
        let secrets = Secrets::from_random(password, &format!("{:08x}", rand::random::<u32>()));
        let key = ctx.keys.secrets(cluster);
        match ctx.commit(vec![Write::document(key.clone(), &secrets)], vec![Guard::Absent { key }]).await {
            // Somebody was faster: the watch brings his.
            Err(StepError::Changed(_)) => {}
            Ok(revision) => self.instance.await_revision(revision).await,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn pull(&mut self, desired: &Desired) {
        let instance = self.instance.clone();
        let image = desired.image.clone();
        instance.state().seen.pull = Work::Running;
        tokio::spawn(async move {
            let pulled = instance.ctx.containers.pull(&image).await;
            let failed = pulled.is_err();
            instance.state().seen.pull = match pulled {
                Ok(()) => Work::Idle,
                Err(error) => Work::Failed(error.to_string()),
            };
            instance.wake_converge.notify_one();
            if failed {
                // Somebody may load it, or a registry come back: looked at again after a while.
                tokio::time::sleep(instance.ctx.scaled(Duration::from_secs(30))).await;
                instance.state().seen.pull = Work::Idle;
                instance.wake_converge.notify_one();
            }
        });
    }

    fn make_template(&mut self, desired: &Desired, seen: &Seen) {
        let Some(image) = seen.image.present() else { return };
        let key = template_key(&image.id);
        let ctx = self.instance.ctx.clone();
        let mut mine = false;
        ctx.templates.send_if_modified(|templates| {
            mine = templates.get(&key).is_none_or(|seen| matches!(seen, TemplateSeen::Missing));
            if mine {
                templates.insert(key.clone(), TemplateSeen::Making);
            }
            mine
        });
        if !mine {
            return;
        }
        let image = desired.image.clone();
        tokio::spawn(async move {
            let made = match crate::template::make(&ctx, &key, &image).await {
                Ok(version) => TemplateSeen::Ready { version },
                Err(error) => TemplateSeen::Failed { reason: error.to_string() },
            };
            let failed = matches!(made, TemplateSeen::Failed { .. });
            ctx.templates.send_modify(|templates| {
                templates.insert(key.clone(), made);
            });
            if failed {
                tokio::time::sleep(ctx.scaled(Duration::from_secs(30))).await;
                ctx.templates.send_modify(|templates| {
                    templates.remove(&key);
                });
            }
        });
    }

    async fn copy_template(&mut self, seen: &Seen) -> Result<(), StepError> {
        let image = seen.image.present().ok_or(StepError::Changed("the image"))?;
        // Half a copy is known as one, also after a crash in the middle.
        self.instance
            .update_record(|record| {
                *record = Record {
                    server_id: record.server_id,
                    attempts: record.attempts,
                    data: DataOrigin::Copying,
                    ..Record::default()
                };
            })
            .await?;
        // Files of data that were here before are not for these.
        let disk = &self.instance.ctx.disk;
        for file in [InstanceFile::Config, InstanceFile::GoodConfig] {
            disk.write_file(&self.instance.name, file, None).await?;
        }
        disk.copy_template(&template_key(&image.id), &self.instance.name).await?;
        self.instance.update_record(|record| record.data = DataOrigin::Template).await
    }

    async fn set_aside(&mut self, wish: &Wish, seen: &Seen) -> Result<(), StepError> {
        let instance = self.instance.clone();
        let why = match (&wish.wanted, &seen.record.replacing) {
            (Wanted::Deleted, _) => RetiredWhy::Deleted,
            (_, Some(replacing)) if replacing.asked => RetiredWhy::Reseed,
            _ => RetiredWhy::Replaced,
        };
        if seen.data.is_absent() {
            instance.update_record(|record| *record = Record::default()).await?;
        } else {
            instance.ctx.disk.retire(&instance.name, instance.ctx.clock.now(), why).await?;
            instance.reload_record().await?;
            instance.tell(wish, "retired", "its data were set aside in retired/");
        }
        let mut state = instance.state();
        let ids = std::mem::take(&mut state.requests.reseed);
        state.requests.done.extend(ids.into_iter().map(|id| (id, Ok(()))));
        state.seen.judged = None;
        state.seen.accounts_version = None;
        state.seen.start_error = None;
        drop(state);
        self.failed_starts = 0;
        Ok(())
    }

    /// Lets mysqld itself check the variables; a verdict is kept, so that it is not asked again.
    async fn validate(&mut self, desired: &Desired, seen: &Seen, text: &str) -> Result<(), StepError> {
        let instance = self.instance.clone();
        let ctx = &instance.ctx;
        let owner = ctx.owner.borrow().clone().ok_or(StepError::Changed("the fleet"))?;
        ctx.disk.write_file(&instance.name, InstanceFile::CandidateConfig, Some(text)).await?;
        let errand = Errand {
            image: desired.image.clone(),
            command: vec![
                "mysqld".to_owned(),
                format!("--defaults-file={MOUNT}/my.cnf.candidate"),
                "--validate-config".to_owned(),
            ],
            user: ctx.server_user(),
            mounts: vec![(instance.places.mount.clone(), MOUNT.to_owned())],
        };
        let end = ctx.containers.run(&owner, &errand, 30).await?;
        ctx.disk.write_file(&instance.name, InstanceFile::CandidateConfig, None).await?;
        let hash = judgement(text, &desired.image);
        if end.code == 0 {
            return instance
                .update_record(|record| {
                    record.validated = Some(hash);
                    record.rejected = None;
                })
                .await;
        }
        let error = end
            .output
            .lines()
            .find(|line| line.contains("[ERROR]"))
            .or(end.output.lines().last())
            .unwrap_or("mysqld refused the variables without a word")
            .to_owned();
        let first = seen.config.is_none();
        instance
            .update_record(|record| record.rejected = Some(RejectedConfig { hash, error: error.clone() }))
            .await?;
        let message = format!("variables of `mysql` were refused by mysqld: {error}");
        instance.ctx.events.tell(Some(&desired.cluster), Some(&instance.name), "refused", message.clone());
        if first { Err(StepError::Refused(message)) } else { Ok(()) }
    }

    /// A server that does not come up with changed variables is started with the last file that worked.
    async fn restore_config(&mut self, desired: &Desired, seen: &Seen, error: &str) -> Result<(), StepError> {
        let instance = self.instance.clone();
        let (Some(config), Some(good)) = (&seen.config, &seen.good_config) else {
            return Err(StepError::Changed("the configuration"));
        };
        let rejected = RejectedConfig { hash: judgement(config, &desired.image), error: error.to_owned() };
        instance.update_record(|record| record.rejected = Some(rejected)).await?;
        instance.ctx.disk.write_file(&instance.name, InstanceFile::Config, Some(good)).await?;
        let message =
            format!("mysqld did not come up with changed variables ({error}); the last ones are back");
        instance.ctx.events.tell(Some(&desired.cluster), Some(&instance.name), "refused", message);
        instance.state().seen.start_error = None;
        self.failed_starts = 0;
        Ok(())
    }

    async fn start(&mut self, seen: &Seen) -> Result<(), StepError> {
        let instance = self.instance.clone();
        let container = seen.container.present().ok_or(StepError::Changed("the container"))?;
        let config = seen.config.clone();
        if seen.config != seen.record.in_force {
            instance.update_record(|record| record.in_force = config).await?;
        }
        {
            let mut state = instance.state();
            state.seen.stopping = Stopping::No;
            state.seen.unsettable.clear();
            state.seen.server = Known::Absent;
        }
        self.started = Some(tokio::time::Instant::now());
        self.settings_at = None;
        instance.ctx.containers.start(&container.id).await?;
        instance.ctx.look_at_containers().await;
        Ok(())
    }

    /// L5: closed first; then a clean shutdown only if `super_read_only=ON` has returned, else SIGKILL.
    async fn stop(&mut self, wish: &Wish, why: &str) -> Result<(), StepError> {
        let instance = self.instance.clone();
        let ctx = &instance.ctx;
        let closed = instance.close_to_stop().await;
        let (_, _, seen) = instance.snapshot();
        let container = seen.container.present().map(|container| container.id.clone());
        match (&container, closed) {
            (Some(id), true) => match ctx.containers.terminate(id, GRACE_SECONDS).await {
                Ok(()) => {}
                Err(ContainerError::Deadline { .. }) => ctx.containers.kill(id).await?,
                Err(error) => return Err(error.into()),
            },
            (Some(id), false) => {
                // A paused container thaws in dying; an answer to a waiting client is what SIGKILL rules out.
                ctx.containers.kill(id).await?;
            }
            (None, _) => {}
        }
        if let Known::Present(process) = ctx.disk.process(&instance.name).await {
            ctx.disk.kill_process(&process).await?;
        }
        ctx.look_at_containers().await;
        self.session = None;
        if !instance.state().requests.restart.is_empty() {
            instance.state().requests.restarting = true;
        }
        instance.tell(wish, "stopped", format!("stopped: {why}"));
        Ok(())
    }

    /// The cluster is empty: master none, no voters, the term kept.
    async fn release(&mut self, wish: &Wish) -> Result<(), StepError> {
        let instance = self.instance.clone();
        let ctx = &instance.ctx;
        let cluster = wish.grant.cluster.as_ref().ok_or(StepError::Changed("the cluster"))?;
        let (record_key, members_key) = (ctx.keys.leadership(cluster), ctx.keys.members(cluster));
        let answer = ctx.store().read_linearizable(&[record_key.clone(), members_key.clone()]).await?;
        let entry = answer.get(&record_key).ok_or(StepError::Changed("the leadership"))?;
        let record: Leadership = serde_json::from_slice(&entry.value)
            .map_err(|error| StepError::Refused(format!("{record_key} cannot be read: {error}")))?;
        if record.master.as_ref() != Some(&instance.name) || wish.grant.record() != Some(&record) {
            return Err(StepError::Changed("the leadership"));
        }
        let released = Leadership {
            master: None,
            voters: Vec::new(),
            acks: 0,
            acks_next: None,
            leaving: Vec::new(),
            by: format!("agent {}", ctx.settings.host),
            reason: "no target of the cluster is left".to_owned(),
            ..record
        };
        let guards = vec![
            Guard::At { key: record_key.clone(), mod_revision: entry.mod_revision },
            Guard::unchanged(members_key.clone(), answer.get(&members_key).map(|entry| entry.mod_revision)),
        ];
        let revision = ctx.commit(vec![Write::document(record_key, &released)], guards).await?;
        instance.tell(wish, "released", format!("nobody leads {cluster} any more: it has no members"));
        instance.await_revision(revision).await;
        Ok(())
    }

    async fn forget(&mut self, wish: &Wish) -> Result<(), StepError> {
        let instance = self.instance.clone();
        let ctx = &instance.ctx;
        instance.tell(
            wish,
            "removed",
            "its target is gone: the container was removed, the data are in retired/",
        );
        let host = &ctx.settings.host;
        ctx.disk.forget(&instance.name).await?;
        let keys = [
            ctx.keys.log(host, &instance.name),
            ctx.keys.vote(host, &instance.name),
            ctx.keys.status(host, &instance.name),
        ];
        ctx.commit(keys.into_iter().map(|key| Write::Delete { key }).collect(), Vec::new()).await?;
        instance.stop.cancel();
        Ok(())
    }
}

impl Instance {
    /// Asks the standing lane to close the server; `true`: `super_read_only=ON` has returned.
    async fn close_to_stop(&self) -> bool {
        self.state().seen.stopping = Stopping::Asked;
        self.wake_standing.notify_one();
        let mut status = self.status.subscribe();
        let closed = async {
            loop {
                if let Stopping::Closed { read_only_returned } = self.state().seen.stopping {
                    return read_only_returned;
                }
                // A server that does not answer cannot be closed.
                if self.state().seen.server.present().is_none() {
                    return false;
                }
                tokio::select! {
                    biased;
                    () = self.wake_converge.notified() => {}
                    changed = status.changed() => if changed.is_err() { return false },
                }
            }
        };
        tokio::time::timeout(CLOSES_WITHIN, closed).await.unwrap_or(false)
    }
}
