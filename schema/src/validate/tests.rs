use super::*;
use crate::Timestamp;
use crate::leadership::{Durability, LeadershipPhase, LineageEntry};
use crate::size::{GIB, Resources};
use crate::status::{StoreReport, StoreState};
use crate::strict::read_file;

fn host(name: &str, memory: u64) -> (HostName, Host) {
    let name: HostName = name.parse().unwrap();
    let host = Host {
        name: name.clone(),
        address: "127.0.1.1".into(),
        zone: None,
        labels: BTreeMap::new(),
        capacity: Resources { memory, cpus: 2.0, disk: None },
        allocated: Resources::default(),
        free_disk: None,
        retired: vec![],
        instances: 0,
        warnings: vec![],
        store: StoreReport { state: StoreState::Ok, expected: None, found: None },
        agent_version: String::new(),
        docker_version: None,
        updated_at: Timestamp::UNIX_EPOCH,
    };
    (name, host)
}

/// Lines such as `h1-c-db1 master 1` or `h2-c-db2 minion 1 h1:1 "size": "half"`.
fn documents(lines: &str) -> BTreeMap<InstanceName, Target> {
    let entries: Vec<String> = lines
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| {
            let mut words = line.splitn(4, ' ');
            let mut next = || words.next().unwrap_or_default();
            let (name, role, port, rest) = (next(), next(), next(), next());
            let (source, more) = match rest.split_once(' ') {
                Some((source, more)) if source.contains(':') && !source.starts_with('"') => (source, more),
                _ if rest.contains(':') && !rest.starts_with('"') => (rest, ""),
                _ => ("", rest),
            };
            let source = source
                .split_once(':')
                .map(|(host, port)| format!(r#", "master_host": "{host}", "master_port": {port}"#));
            let more = if more.is_empty() { String::new() } else { format!(", {more}") };
            let source = source.unwrap_or_default();
            format!(r#""{name}": {{"data": {{"role": "{role}", "port": {port}{source}{more}}}}}"#)
        })
        .collect();
    read_file("f", format!("{{{}}}", entries.join(",")).as_bytes()).unwrap().into_iter().collect()
}

fn picture(etcd: &str, file: &str) -> Picture {
    let hosts: BTreeMap<_, _> = (1..=4).map(|n| host(&format!("h{n}"), 4 * GIB)).collect();
    let names: BTreeSet<HostName> = hosts.keys().cloned().collect();
    let mut picture = Picture { hosts, ..Picture::default() };
    for (name, target) in documents(etcd) {
        let (host, cluster) = place("f", &name, &target, None, &names).unwrap();
        let placed = Placed { host, cluster, before: Some(target.clone()), target, file: None };
        picture.instances.insert(name, placed);
    }
    for (name, target) in documents(file) {
        let stored = picture.instances.remove(&name);
        let at = stored.as_ref().map(|placed| (&placed.host, &placed.cluster));
        let (host, cluster) = place("f", &name, &target, at, &names).unwrap();
        let before = stored.and_then(|placed| placed.before);
        picture.instances.insert(name, Placed { host, cluster, before, target, file: Some("f".into()) });
    }
    picture
}

fn record(master: Option<&str>, last: &str) -> Leadership {
    Leadership {
        term: 3,
        master: master.map(|name| name.parse().unwrap()),
        phase: LeadershipPhase::Steady,
        to: None,
        deadline: None,
        voters: vec![],
        acks: 0,
        acks_next: None,
        leaving: vec![],
        durability: Durability::Async,
        founder: String::new(),
        settled: Default::default(),
        lineage: vec![LineageEntry {
            term: 3,
            name: last.parse().unwrap(),
            server_uuid: String::new(),
            base: Default::default(),
        }],
        by: String::new(),
        reason: String::new(),
    }
}

fn said(picture: &Picture) -> String {
    let findings = check(picture);
    let refusals = findings.refusals.iter().map(|refusal| format!("refused  {refusal}"));
    let warnings = findings.warnings.iter().map(|warning| format!("warning  {warning}"));
    refusals.chain(warnings).collect::<Vec<_>>().join("\n")
}

const THREE: &str = "h1-c-db1 master 1
                     h2-c-db2 minion 1 h1:1
                     h3-c-db3 minion 1 h1:1";

#[test]
fn a_sound_cluster_and_an_unchanged_fleet_are_not_refused() {
    assert_eq!(said(&picture("", THREE)), "");
    assert_eq!(said(&picture(THREE, THREE)), "");
    // What stands in etcd is not refused anew, however wrong it is.
    assert_eq!(said(&picture("h1-c-db1 master 1\nh1-c-db2 master 1", "")), "");
}

#[test]
fn what_does_not_go_together_is_refused() {
    let table: Vec<String> = [
        ("two masters in the file", "", "h1-c-db1 master 1\nh2-c-db2 master 1"),
        ("two masters with etcd", THREE, "h4-c-db4 master 1"),
        ("a port twice in the file", "", "h1-c-db1 master 1\nh1-d-db1 master 1"),
        ("a port against etcd", THREE, "h2-d-db1 master 1"),
        ("itself", "", "h1-c-db1 minion 1 h1:1"),
        ("a circle", "", "h1-c-db1 minion 1 h2:1\nh2-c-db2 minion 1 h3:1\nh3-c-db3 minion 1 h1:1"),
        ("a circle with etcd", THREE, "h1-c-db1 minion 1 h3:1"),
        ("another cluster's", THREE, "h4-d-db4 minion 1 h1:1"),
        ("too large", "", "h1-c-db1 master 1 \"size\": {\"memory\": \"5GiB\", \"cpus\": 3}"),
        ("lossless", "", "h1-c-db1 master 1 \"mysql\": {\"sync-binlog\": 0}"),
        ("the master disabled", THREE, "h1-c-db1 master 1 \"disabled\": true"),
    ]
    .iter()
    .map(|(what, etcd, file)| format!("{what}\n    {}", said(&picture(etcd, file)).replace('\n', "\n    ")))
    .collect();
    insta::assert_snapshot!(table.join("\n"));
}

#[test]
fn what_may_come_later_is_warned_of() {
    let table: Vec<String> = [
        ("minions only", "", "h2-c-db2 minion 1 h1:1\nh3-c-db3 minion 1 h1:1"),
        ("an unknown host", "", "h2-c-db2 minion 1 h11:1"),
        ("its own host unknown", "", "h9-c-db2 minion 1 h1:1"),
        ("shares", "", "h1-c-db1 master 1 \"size\": \"half\"\nh1-d-db1 master 2"),
        ("shares of a host never seen", "", "h9-c-db1 master 1\nh9-d-db1 master 2"),
        ("a large pool", "", "h1-c-db1 master 1 \"mysql\": {\"innodb_buffer_pool_size\": \"4G\"}"),
    ]
    .iter()
    .map(|(what, etcd, file)| format!("{what}\n    {}", said(&picture(etcd, file)).replace('\n', "\n    ")))
    .collect();
    insta::assert_snapshot!(table.join("\n"));
}

#[test]
fn all_members_may_be_disabled_at_once() {
    let all = THREE.lines().map(|line| format!("{line} \"disabled\": true")).collect::<Vec<_>>().join("\n");
    assert_eq!(said(&picture(THREE, &all)), "");
}

#[test]
fn async_clusters_may_set_what_lossless_needs() {
    let mut picture = picture("", "h1-c-db1 master 1 \"mysql\": {\"sync_binlog\": 0}");
    let policy = ClusterPolicy { durability: Some(WishedDurability::Async), ..ClusterPolicy::default() };
    picture.policies.insert("c".parse().unwrap(), policy);
    assert_eq!(said(&picture), "");
}

fn roles(picture: &Picture) -> String {
    let line = |(name, placed): (&InstanceName, &Placed)| {
        let source =
            placed.target.source().map(|(host, port)| format!(" of {host}:{port}")).unwrap_or_default();
        format!("{name} {}{source}", placed.target.role)
    };
    picture.instances.iter().map(line).collect::<Vec<_>>().join("; ")
}

#[test]
fn roles_are_written_as_leadership_has_them() {
    let cluster: ClusterName = "c".parse().unwrap();
    let mut led_by_db2 = picture(THREE, &format!("{THREE}\nh4-c-db4 minion 1 h1:1"));
    let changed = write_roles(&cluster, &"h2-c-db2".parse().unwrap(), &mut led_by_db2.instances);
    assert_eq!(
        roles(&led_by_db2),
        "h1-c-db1 minion of h2:1; h2-c-db2 master; h3-c-db3 minion of h2:1; h4-c-db4 minion of h2:1"
    );
    assert_eq!(changed.len(), 4);

    let mut as_founded = picture(THREE, THREE);
    assert!(write_roles(&cluster, &"h1-c-db1".parse().unwrap(), &mut as_founded.instances).is_empty());

    // The file names the old master only in passing.
    let mut part = picture(THREE, "h2-c-db2 minion 1 h1:1\nh3-c-db3 minion 1 h1:1");
    write_roles(&cluster, &"h2-c-db2".parse().unwrap(), &mut part.instances);
    assert_eq!(roles(&part), "h1-c-db1 master; h2-c-db2 master; h3-c-db3 minion of h2:1");

    // A minion of a minion stays one.
    let mut chain = picture("", "h1-c-db1 master 1\nh2-c-db2 minion 1 h1:1\nh3-c-db3 minion 1 h2:1");
    assert!(write_roles(&cluster, &"h1-c-db1".parse().unwrap(), &mut chain.instances).is_empty());

    // A leader without a document decides nothing.
    assert!(write_roles(&cluster, &"h4-c-db9".parse().unwrap(), &mut chain.instances).is_empty());
}

#[test]
fn what_leadership_forbids_is_refused() {
    let cluster: ClusterName = "c".parse().unwrap();
    let mut follows = picture(THREE, "h1-c-db1 master 1 h4:9");
    follows.leaderships.insert(cluster.clone(), record(Some("h1-c-db1"), "h1-c-db1"));
    let mut disabled = picture(THREE, "h1-c-db1 master 1 \"disabled\": true");
    disabled.leaderships.insert(cluster.clone(), record(Some("h1-c-db1"), "h1-c-db1"));
    let mut deleted = picture(THREE, "");
    let (name, placed) = deleted.instances.pop_first().unwrap();
    deleted.deleted.insert(name, placed);
    insta::assert_snapshot!([follows, disabled, deleted].map(|picture| said(&picture)).join("\n"));
}

#[test]
fn a_released_record_names_the_last_master() {
    assert_eq!(leader(&record(None, "h2-c-db2")).map(InstanceName::as_str), Some("h2-c-db2"));
}

#[test]
fn stored_host_and_cluster_stay() {
    let name: InstanceName = "h1-c-db1".parse().unwrap();
    let stored: (HostName, ClusterName) = ("h7".parse().unwrap(), "d".parse().unwrap());
    let target = documents("h1-c-db1 master 1").remove(&name).unwrap();
    let at = Some((&stored.0, &stored.1));
    assert_eq!(place("f", &name, &target, at, &BTreeSet::new()).unwrap(), stored);
    let moved = documents("h1-c-db1 master 1 \"host\": \"h8\", \"cluster\": \"e\"").remove(&name).unwrap();
    assert_eq!(place("f", &name, &moved, at, &BTreeSet::new()).unwrap_err().len(), 2);
}
