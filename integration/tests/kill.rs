//! The agent is ended by kill -9 before and after every step; the next life takes up where the step was.

use std::collections::BTreeSet;
use std::time::Duration;

use schemadock_integration::fleet::{Fleet, Options, Writer, docker, documents, host, member};
use serde_json::json;

/// The steps there are, read from the plan's source: a new one is covered by itself, or fails this test.
fn all_points() -> BTreeSet<String> {
    let source = include_str!("../../agent/plan/src/step.rs");
    let mut steps = BTreeSet::new();
    for lane in ["pub enum ConvergeStep {", "pub enum StandingStep {"] {
        let body = source.split(lane).nth(1).and_then(|rest| rest.split("\n}").next()).expect("the steps");
        for line in body.lines() {
            let Some(name) = line.strip_prefix("    ") else { continue };
            if name.starts_with(|c: char| c.is_ascii_uppercase()) {
                steps.insert(name.trim_end_matches([',', ' ', '{']).to_owned());
            }
        }
    }
    steps.iter().flat_map(|step| [format!("{step}.before"), format!("{step}.after")]).collect()
}

/// Steps that the scenario here does not bring about: each has a test of its own elsewhere.
const ELSEWHERE: &[&str] = &[
    // An image that is not here, settings that a server refuses: settings.rs.
    "PullImage",
    "RestoreConfig",
    // A record that was lost with its data kept; a server that Docker has lost: refusal.rs, docker.rs.
    "AdoptData",
    "EndLost",
    // Transactions of a minion's own: refusal.rs.
    "JudgeForeign",
    "SettleForeign",
    "Detach",
    // A reseed asked of a member that takes over meanwhile: the simulation, and the plan's own tests.
    "KeepData",
    // Voters and handovers need a controller: handover.rs plays one.
    "SemiSyncOff",
    "Acknowledge",
    "LockReceivers",
    "EndReceivers",
    // Receivers that are no voters': the agent's acknowledging test, and the plan's own.
    "EndStrangers",
    "RaiseAcks",
    "LowerAcks",
    "BeginBarrier",
    "Nudge",
    "Prepare",
    "FollowCandidate",
    "MoveBehind",
    "Freeze",
    "PublishFinal",
    "TakeBack",
    "TakeOver",
    "ScheduleEvents",
    // Frozen schemas: frozen.rs.
    "SetFrozen",
    "StepDown",
    "TakeEvents",
];

/// A fleet whose agents are started anew whenever a failpoint has ended them.
struct Mortal {
    fleet: Fleet,
    deaths: usize,
}

impl Mortal {
    fn file(&self) -> String {
        self.fleet.dir().join("failpoints").display().to_string()
    }

    /// Drives the fleet to a state, through as many deaths as it takes.
    async fn until<T>(
        &mut self,
        what: &str,
        seen: impl Fn(&schemadock_integration::fleet::World) -> Option<T>,
    ) -> T {
        let point = format!("each:{}", self.file());
        let deadline = tokio::time::Instant::now() + Duration::from_secs(240);
        loop {
            for agent in &mut self.fleet.agents {
                if !agent.is_running() {
                    // Collects the process that has ended.
                    agent.kill();
                    agent.start(&[("SCHEMADOCK_FAILPOINT", &point)]);
                    self.deaths += 1;
                }
            }
            let slice = tokio::time::timeout(Duration::from_millis(50), self.fleet.until(what, &seen));
            match slice.await {
                Ok(found) if self.fleet.agents.iter_mut().all(|agent| agent.is_running()) => return found,
                _ if tokio::time::Instant::now() >= deadline => {
                    panic!("not through all deaths: {what}\n{}", self.fleet.describe())
                }
                _ => {}
            }
        }
    }

    async fn until_converged(&mut self) {
        self.until("converged", |world| {
            (world.converged(&member(1)) && world.converged(&member(2))).then_some(())
        })
        .await;
    }

    /// What has been told of an instance so far.
    fn heard(&self, number: u8) -> (Option<schemadock_schema::Timestamp>, usize) {
        let world = self.fleet.world();
        (world.status(&member(number)).map(|status| status.updated_at), world.events().len())
    }

    /// Does harm that must be mended by this step. (What is seen first may be the end of an earlier repair.)
    async fn harm(&mut self, number: u8, step: &str, statements: &[&str]) {
        let mut sql = self.fleet.sql(number).await;
        let before = self.heard(number);
        for statement in statements {
            sql.run(statement).await;
        }
        drop(sql);
        self.sees_and_mends(number, before).await;
        let (file, point) = (self.file(), format!("{step}.after"));
        let reached =
            move || std::fs::read_to_string(&file).is_ok_and(|text| text.lines().any(|l| l == point));
        self.until("the step that mends it", move |_| reached().then_some(())).await;
        self.until_converged().await;
    }

    /// Asks for something once, by the command line, until it is done: a request that a death has met is refused.
    async fn ask(&mut self, what: &str, number: u8) {
        let name = member(number);
        let done = format!("{what} {name}, ");
        let ended_well = |fleet: &Fleet| {
            let all = fleet.world().events();
            all.iter().any(|event| event.message.starts_with(&done) && event.message.ends_with(": done"))
        };
        while !ended_well(&self.fleet) {
            let before = self.fleet.world().told(&name, "request", &done);
            let asking = tokio::spawn(self.fleet.cli(&[what, &name, "--yes"]).run());
            self.until("the request ended", |world| {
                (world.told(&name, "request", &done) > before).then_some(())
            })
            .await;
            asking.abort();
        }
        self.until_converged().await;
    }

    /// Waits until the harm was seen (a new event or status), then until all is well.
    async fn sees_and_mends(&mut self, number: u8, before: (Option<schemadock_schema::Timestamp>, usize)) {
        let name = member(number);
        self.until("the harm is seen", move |world| {
            let now = (world.status(&name).map(|status| status.updated_at), world.events().len());
            (now != before).then_some(())
        })
        .await;
        self.until_converged().await;
    }
}

#[tokio::test]
async fn killed_before_and_after_every_step() {
    let mut options = Options::hosts(2);
    options.templates = false;
    let fleet = Fleet::bare(options).await;
    let mut mortal = Mortal { fleet, deaths: 0 };
    // The command line needs registered hosts.
    mortal
        .until("registered", |w| (w.host(&host(1)).is_some() && w.host(&host(2)).is_some()).then_some(()))
        .await;
    mortal.fleet.apply(&documents(2)).await;
    mortal.until_converged().await;
    let mut writer = mortal.fleet.writer(1).await;
    writer.more(5).await;

    // Drift of every kind.
    mortal.harm(2, "StartReceiver", &["STOP REPLICA IO_THREAD"]).await;
    mortal.harm(2, "StartApplier", &["STOP REPLICA SQL_THREAD"]).await;
    mortal.harm(2, "Close", &["SET GLOBAL read_only = OFF"]).await;
    mortal.harm(2, "LiftOffline", &["SET GLOBAL offline_mode = ON"]).await;
    mortal.harm(2, "Repoint", &["STOP REPLICA", "CHANGE REPLICATION SOURCE TO SOURCE_PORT = 1"]).await;
    mortal.harm(2, "Attach", &["STOP REPLICA", "RESET REPLICA ALL"]).await;
    mortal.harm(1, "Open", &["SET GLOBAL read_only = ON"]).await;
    mortal.harm(1, "SetVariable", &["SET GLOBAL sync_binlog = 0"]).await;
    mortal
        .harm(1, "ForgetSource", &["CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.9', SOURCE_PORT = 1"])
        .await;
    let container = mortal.fleet.container(&member(2));
    for harm in [&["pause"][..], &["rm", "-f"]] {
        let before = mortal.heard(2);
        docker(&[harm, &[container.as_str()]].concat());
        mortal.sees_and_mends(2, before).await;
    }

    // Changes of the target: live, with a restart, of the size.
    mortal.fleet.edit(&member(1), json!({"mysql": {"max_connections": 200}})).await;
    mortal.until_converged().await;
    mortal.fleet.edit(&member(2), json!({"size": {"memory": "900MiB", "cpus": 1}})).await;
    mortal.until_converged().await;
    mortal.ask("restart", 2).await;

    // Data gone under the minion while the master has purged its binary logs: seeded anew, by CLONE.
    let mut sql = mortal.fleet.sql(1).await;
    sql.run("FLUSH BINARY LOGS").await;
    let newest =
        sql.rows("SHOW BINARY LOGS").await.pop().and_then(|row| row.into_iter().next()).expect("a log");
    sql.run(&format!("PURGE BINARY LOGS TO '{newest}'")).await;
    mortal.ask("reseed", 2).await;
    writer.more(5).await;
    let ledger = writer.stop().await;
    for number in [1, 2] {
        let executed = mortal.fleet.sql(1).await.global("gtid_executed").await;
        let mut sql = mortal.fleet.sql(number).await;
        sql.run(&format!("DO WAIT_FOR_EXECUTED_GTID_SET('{executed}', 20)")).await;
        Writer::verify(&ledger, &mut sql).await;
    }

    // Away, and back again.
    let targets = documents(2);
    for number in [2, 1] {
        mortal.fleet.remove(&mortal.fleet.target_key(&member(number))).await;
    }
    mortal
        .until("nothing is left", |world| {
            (world.status(&member(1)).is_none() && world.status(&member(2)).is_none()).then_some(())
        })
        .await;
    for number in [1, 2] {
        let key = mortal.fleet.target_key(&member(number));
        mortal.fleet.put(&key, &targets[member(number)]).await;
    }
    mortal.until_converged().await;
    let mut sql = mortal.fleet.sql(2).await;
    Writer::verify(&ledger, &mut sql).await;

    let text = std::fs::read_to_string(mortal.file()).unwrap_or_default();
    let reached: BTreeSet<String> = text.lines().map(str::to_owned).collect();
    let missed: Vec<String> = all_points()
        .difference(&reached)
        .filter(|point| !ELSEWHERE.iter().any(|step| point.starts_with(&format!("{step}."))))
        .cloned()
        .collect();
    assert!(missed.is_empty(), "never reached: {missed:?}");
    assert!(mortal.deaths >= reached.len(), "{} deaths, {} points", mortal.deaths, reached.len());
    eprintln!("{} points, {} deaths", reached.len(), mortal.deaths);
}
