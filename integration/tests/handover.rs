//! Voters and handovers on real servers, without a controller: the test writes the leadership record as one would.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, OptsBuilder, SslOpts};
use schemadock_integration::fleet::{CLUSTER, Fleet, PORT, Writer, member};
use schemadock_schema::ClusterName;
use schemadock_schema::leadership::{Durability, Handover, Leadership, LeadershipPhase, Voter};
use tokio::task::JoinHandle;

fn cluster() -> ClusterName {
    CLUSTER.parse().expect("it is one")
}

fn record(fleet: &Fleet) -> Leadership {
    let world = fleet.world();
    let entry = world.entry(&fleet.keys.leadership(&cluster())).expect("somebody leads");
    serde_json::from_slice(&entry.value).expect("it can be read")
}

fn voter(fleet: &Fleet, number: u8) -> Voter {
    let status = fleet.world().status(&member(number)).expect("a status");
    Voter { name: status.name, server_uuid: status.server_uuid.expect("data") }
}

/// Changes the record as a controller would; its revision.
async fn write(fleet: &Fleet, change: impl FnOnce(&mut Leadership)) -> i64 {
    let mut record = record(fleet);
    change(&mut record);
    record.by = "test".to_owned();
    let value = serde_json::to_value(&record).expect("records serialise");
    fleet.put(&fleet.keys.leadership(&cluster()), &value).await
}

/// All of a record is in force on these members.
async fn in_force(fleet: &Fleet, revision: i64, numbers: &[u8]) {
    fleet
        .until(&format!("record {revision} is in force on {numbers:?}"), |world| {
            let says = |number: &u8| world.status(&member(*number))?.leadership_revision;
            numbers.iter().all(|number| says(number) == Some(revision)).then_some(())
        })
        .await;
}

/// From a claimed cluster to a lossless one with the minions as voters.
async fn lossless(fleet: &Fleet) {
    let voters = vec![voter(fleet, 2), voter(fleet, 3)];
    let revision = write(fleet, |record| {
        record.voters = voters;
        record.acks_next = Some(1);
    })
    .await;
    in_force(fleet, revision, &[1, 2, 3]).await;
    let revision = write(fleet, |record| {
        (record.acks, record.acks_next, record.durability) = (1, None, Durability::Lossless);
    })
    .await;
    in_force(fleet, revision, &[1, 2, 3]).await;
}

/// Begins a handover, and waits for its end; who has won, and the record as it is written then.
async fn hand_over(fleet: &Fleet, to: u8, patience: Duration) -> (Handover, u64) {
    let until =
        jiff::Timestamp::now().checked_add(jiff::SignedDuration::try_from(patience).unwrap()).unwrap();
    write(fleet, |record| {
        record.term += 1;
        record.phase = LeadershipPhase::Handover;
        record.to = Some(member(to).parse().unwrap());
        record.deadline = Some(until);
    })
    .await;
    let term = record(fleet).term;
    (decided(fleet, term).await, term)
}

async fn decided(fleet: &Fleet, term: u64) -> Handover {
    let key = fleet.keys.handover(&cluster(), term);
    fleet
        .until("the handover is decided", |world| {
            world.entry(&key).and_then(|entry| serde_json::from_slice(&entry.value).ok())
        })
        .await
}

/// Folds the end of a handover into the record, and waits until all follow it.
async fn fold(fleet: &Fleet, ended: &Handover) {
    let revision = write(fleet, |record| *record = record.with_handover(Some(ended))).await;
    in_force(fleet, revision, &[1, 2, 3]).await;
    let winner = ended.winner.to_string();
    fleet.until_status(&winner, "writable", |status| status.writable == Some(true)).await;
}

/// Writes wherever it is let, keeps a ledger of what was acknowledged, and the longest pause in between.
struct Client {
    ledger: Arc<Mutex<(BTreeSet<u64>, Duration)>>,
    task: JoinHandle<()>,
}

impl Client {
    async fn start(fleet: &Fleet) -> Client {
        // Makes the table.
        drop(fleet.writer(1).await.stop().await);
        let secrets = fleet.secrets();
        let options: Vec<OptsBuilder> = (1..=3)
            .map(|number| {
                let tls = SslOpts::default()
                    .with_danger_accept_invalid_certs(true)
                    .with_danger_skip_domain_validation(true);
                OptsBuilder::default()
                    .ip_or_hostname(fleet.address(number))
                    .tcp_port(PORT)
                    .user(Some(secrets.application.user.clone()))
                    .pass(Some(secrets.application.password.expose().to_owned()))
                    .prefer_socket(false)
                    .stmt_cache_size(0)
                    .ssl_opts(tls)
            })
            .collect();
        let ledger = Arc::new(Mutex::new((BTreeSet::new(), Duration::ZERO)));
        let kept = ledger.clone();
        let task = tokio::spawn(async move {
            let mut conns: Vec<Option<Conn>> = vec![None, None, None];
            let (mut at, mut last) = (0, Instant::now());
            for id in 1_000_000u64.. {
                if conns[at].is_none() {
                    let opening = Conn::new(options[at].clone());
                    conns[at] = tokio::time::timeout(Duration::from_millis(300), opening)
                        .await
                        .ok()
                        .and_then(Result::ok);
                }
                let written = match &mut conns[at] {
                    None => false,
                    Some(conn) => {
                        let sql = format!("INSERT INTO ledger.rows_written VALUES ({id})");
                        let done = tokio::time::timeout(Duration::from_secs(20), conn.query_drop(sql)).await;
                        match done {
                            Ok(Ok(())) => true,
                            Ok(Err(mysql_async::Error::Server(_))) => false,
                            _ => {
                                conns[at] = None;
                                false
                            }
                        }
                    }
                };
                if written {
                    let mut kept = kept.lock().unwrap();
                    kept.0.insert(id);
                    kept.1 = kept.1.max(last.elapsed());
                    last = Instant::now();
                } else {
                    at = (at + 1) % 3;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        Client { ledger, task }
    }

    /// The longest pause since it was last asked.
    fn pause(&self) -> Duration {
        std::mem::take(&mut self.ledger.lock().unwrap().1)
    }

    fn count(&self) -> usize {
        self.ledger.lock().unwrap().0.len()
    }

    /// Waits until that many more rows were acknowledged.
    async fn more(&self, fleet: &Fleet, rows: usize) {
        let wanted = self.count() + rows;
        let until = Instant::now() + Duration::from_secs(30);
        while self.count() < wanted {
            assert!(Instant::now() < until, "nobody can write any more\n{}", fleet.describe());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops it, and looks for every acknowledged row on all servers.
    async fn verify(self, fleet: &Fleet) {
        self.task.abort();
        let _ = self.task.await;
        let ledger = self.ledger.lock().unwrap().0.clone();
        let leader = record(fleet).master.expect("somebody leads");
        let number = (1..=3).find(|n| member(*n) == leader.as_str()).expect("one of ours");
        let executed = fleet.sql(number).await.global("gtid_executed").await;
        for number in 1..=3 {
            let mut sql = fleet.sql(number).await;
            sql.run(&format!("DO WAIT_FOR_EXECUTED_GTID_SET('{executed}', 20)")).await;
            Writer::verify(&ledger, &mut sql).await;
        }
    }
}

/// The times of the steps, as the agents tell them.
fn times(fleet: &Fleet) -> String {
    let words = [
        "freeze begun",
        "freeze returned",
        "final set published",
        "final set seen",
        "caught up",
        "receives no more",
        "decided",
        "opened\"",
        "taken back",
    ];
    let lines = fleet.agents.iter().flat_map(|agent| {
        let text = agent.log_text();
        text.lines()
            .filter(|line| {
                line.contains("term") && words.iter().any(|word| line.contains(word.trim_end_matches('"')))
            })
            .map(|line| format!("{}: {line}", agent.host))
            .collect::<Vec<_>>()
    });
    let mut lines: Vec<String> = lines.collect();
    lines.sort_by_key(|line| line.split_once(": ").map(|(_, line)| line.to_owned()));
    lines.join("\n")
}

#[tokio::test]
async fn voters_change_and_the_leadership_is_handed_there_and_back() {
    let fleet = Fleet::converged(3).await;
    let client = Client::start(&fleet).await;
    lossless(&fleet).await;
    let status = fleet.world().status(&member(1)).unwrap();
    assert_eq!((status.acks, status.receivers.len()), (Some(1), 2));
    client.more(&fleet, 20).await;

    // One leaves: shut out, behind a barrier; and comes back.
    let third = member(3).parse().unwrap();
    let revision = write(&fleet, |record| record.leaving = vec![third]).await;
    in_force(&fleet, revision, &[1, 2, 3]).await;
    let status = fleet.world().status(&member(1)).unwrap();
    assert_eq!(status.receivers.iter().map(|name| name.to_string()).collect::<Vec<_>>(), [member(2)]);
    assert_eq!(fleet.world().status(&member(3)).unwrap().acknowledges, Some(false));
    let revision = write(&fleet, |record| {
        record.leaving.clear();
        record.voters.retain(|voter| voter.name.as_str() == member(2));
    })
    .await;
    in_force(&fleet, revision, &[1, 2, 3]).await;
    fleet.until_status(&member(1), "both receive", |status| status.receivers.len() == 2).await;
    let again = voter(&fleet, 3);
    let revision = write(&fleet, |record| record.voters.push(again)).await;
    in_force(&fleet, revision, &[1, 2, 3]).await;
    client.more(&fleet, 20).await;
    eprintln!("longest pause while voters changed: {:?}", client.pause());

    // There and back, a few times.
    for to in [2, 1, 2, 1, 3, 1] {
        client.pause();
        let (ended, term) = hand_over(&fleet, to, Duration::from_secs(10)).await;
        assert_eq!(ended.winner.as_str(), member(to), "term {term}\n{}", times(&fleet));
        client.more(&fleet, 20).await;
        eprintln!("term {term}: clients paused for {:?}", client.pause());
        fold(&fleet, &ended).await;
    }
    eprintln!("{}", times(&fleet));
    client.verify(&fleet).await;
}

/// The old master is the only one that can acknowledge the new one's opening.
#[tokio::test]
async fn two_members_hand_the_leadership_to_each_other() {
    let fleet = Fleet::converged(2).await;
    let voters = vec![voter(&fleet, 2)];
    let revision = write(&fleet, |record| (record.voters, record.acks_next) = (voters, Some(1))).await;
    in_force(&fleet, revision, &[1, 2]).await;
    let revision = write(&fleet, |record| {
        (record.acks, record.acks_next, record.durability) = (1, None, Durability::Lossless);
    })
    .await;
    in_force(&fleet, revision, &[1, 2]).await;
    for to in [2, 1, 2] {
        let (ended, _) = hand_over(&fleet, to, Duration::from_secs(10)).await;
        assert_eq!(ended.winner.as_str(), member(to));
        // Before anybody is told of the end: the old master is there to acknowledge.
        fleet.until_status(&member(to), "writable", |status| status.writable == Some(true)).await;
        fleet.sql(to).await.run("DROP TABLE IF EXISTS schemadock.acknowledged").await;
        let revision = write(&fleet, |record| *record = record.with_handover(Some(&ended))).await;
        in_force(&fleet, revision, &[1, 2]).await;
    }
    let told = fleet.describe();
    assert!(!told.contains(" mended "), "{told}");
    // Every one of them, and not through etcd alone.
    let heard = [1, 2].map(|n| fleet.agents[n - 1].log_text().matches("final set heard").count());
    assert!(heard[0] >= 1 && heard[1] >= 2, "the final set was heard {heard:?} times");
    eprintln!("{}", times(&fleet));
    // Statements that wait keep it from being frozen: it is taken back, and they go on.
    let mut holder = fleet.sql(2).await;
    holder.run("CREATE DATABASE shop").await;
    holder.run("CREATE TABLE shop.t (a INT PRIMARY KEY)").await;
    holder.run("LOCK TABLES shop.t WRITE").await;
    let (ended, _) = hand_over(&fleet, 1, Duration::from_secs(10)).await;
    assert_eq!(ended.winner.as_str(), member(2));
    holder.run("INSERT INTO shop.t VALUES (1)").await;
    let revision = write(&fleet, |record| *record = record.with_handover(Some(&ended))).await;
    in_force(&fleet, revision, &[1, 2]).await;
    holder.run("INSERT INTO shop.t VALUES (2)").await;
}

/// An agent of either side ends at each of its steps: the handover is decided all the same, and nothing is lost.
#[tokio::test]
async fn agents_are_killed_in_the_middle_of_a_handover() {
    let mut fleet = Fleet::converged(3).await;
    let client = Client::start(&fleet).await;
    lossless(&fleet).await;
    let points = [
        ("old", "Prepare.before"),
        ("old", "Prepare.after"),
        ("old", "Freeze.before"),
        ("old", "PublishFinal.before"),
        ("old", "PublishFinal.after"),
        ("old", "Freeze.after"),
        ("new", "Prepare.before"),
        ("new", "Prepare.after"),
        ("new", "TakeOver.before"),
        ("new", "TakeOver.after"),
        ("third", "MoveBehind.before"),
        ("third", "MoveBehind.after"),
    ];
    for (who, point) in points {
        let leads = record(&fleet).master.expect("somebody leads").to_string();
        let old = (1..=3).find(|n| member(*n) == leads).expect("one of ours");
        let new = old % 3 + 1;
        let killed = match who {
            "old" => old,
            "new" => new,
            _ => 6 - old - new,
        };
        let agent = fleet.agent(killed);
        agent.kill();
        agent.start(&[("SCHEMADOCK_FAILPOINT", point)]);
        let host = agent.host.clone();
        fleet.until("its agent lives", |world| world.is_alive(&host).then_some(())).await;
        let revision = write(&fleet, |_| ()).await;
        in_force(&fleet, revision, &[1, 2, 3]).await;
        let until = jiff::Timestamp::now().checked_add(jiff::SignedDuration::from_secs(4)).unwrap();
        // Else the candidate has taken over before the old master votes.
        let mut in_the_way = fleet.sql(old).await;
        if point == "PublishFinal.after" {
            let lock = format!("schemadock open in term {}", record(&fleet).term + 1);
            in_the_way.run(&format!("DO GET_LOCK('{lock}', 0)")).await;
        }
        write(&fleet, |record| {
            record.term += 1;
            record.phase = LeadershipPhase::Handover;
            record.to = Some(member(new).parse().unwrap());
            record.deadline = Some(until);
        })
        .await;
        let term = record(&fleet).term;
        let ended = fleet.agent(killed).ended(Duration::from_secs(15)).await;
        assert!(ended.is_some(), "{point} was not reached\n{}", fleet.describe());
        fleet.agent(killed).kill();
        fleet.agent(killed).start(&[]);
        let ended = decided(&fleet, term).await;
        fold(&fleet, &ended).await;
        client.more(&fleet, 10).await;
        eprintln!("{who} {point}: {} leads, clients paused for {:?}", ended.winner, client.pause());
    }
    client.verify(&fleet).await;
}
