use serde_json::json;

use super::*;
use crate::cli::fixture::{at_work, host, keys, master, minion, record, seen};
use crate::cli::targets;

fn given(documents: &[(&str, Value)]) -> Vec<Given> {
    let file: serde_json::Map<String, Value> =
        documents.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let bytes = Value::Object(file).to_string();
    let read = schemadock_schema::strict::read_file("f.json", bytes.as_bytes()).unwrap();
    read.into_iter().map(|(name, target)| Given { file: "f.json".to_owned(), name, target }).collect()
}

fn told(seen: &Seen, wish: &Wish) -> String {
    match plan(&keys(), seen, wish) {
        Err(Failure::Files(refusals)) => format!("files: {}", lines(&refusals)),
        Err(Failure::Refused(refusals)) => format!("refused: {}", lines(&refusals)),
        Err(other) => panic!("{other:?}"),
        Ok(planned) => {
            let mut said = vec![targets::text(&planned.changes)];
            said.extend(planned.notes.iter().map(|note| format!("note: {note}")));
            said.extend(planned.warnings.iter().map(|warning| format!("warning: {warning}")));
            said.extend(planned.locked.iter().map(|locked| format!("locked: {locked}")));
            said.join("\n")
        }
    }
}

fn lines(refusals: &[Refusal]) -> String {
    refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn three() -> Vec<(&'static str, Value)> {
    vec![("h1-c-db1", master("h1")), ("h2-c-db2", minion("h2", "h1")), ("h3-c-db3", minion("h3", "h1"))]
}

#[test]
fn a_new_cluster_is_one_guarded_transaction() {
    let seen = seen(&[("hosts/h1", host("h1", "10.0.0.1")), ("fleet", json!({"id": "f"}))]);
    let planned = plan(&keys(), &seen, &Wish { given: given(&three()[..2]), ..Wish::default() }).unwrap();
    insta::assert_debug_snapshot!(
        planned
            .proposals
            .values()
            .map(|proposal| {
                let writes: Vec<&str> = proposal.writes.iter().map(Write::key).collect();
                (writes, &proposal.guards)
            })
            .collect::<Vec<_>>()
    );
}

#[test]
fn what_is_there_already_changes_nothing() {
    let seen = seen(&at_work(&[], 0));
    let planned = plan(&keys(), &seen, &Wish { given: given(&three()), ..Wish::default() }).unwrap();
    assert!(planned.is_empty() && planned.notes.is_empty(), "{planned:?}");
    // Host and cluster written by hand or not at all make no difference.
    let bare = json!({"data": {"role": "master", "port": 1}});
    let planned =
        plan(&keys(), &seen, &Wish { given: given(&[("h1-c-db1", bare)]), ..Wish::default() }).unwrap();
    assert!(planned.is_empty());
}

#[test]
fn changes_are_told_field_by_field() {
    let seen = seen(&at_work(&[], 0));
    let mut changed = three();
    changed[1].1["data"]["mysql"] = json!({"max_connections": 500});
    changed[1].1["data"]["size"] = json!("half");
    changed.remove(2);
    let added = json!({"data": {"role": "minion", "port": 2, "master_host": "h1", "master_port": 1, "disabled": true}});
    changed.push(("h3-c-db4", added));
    insta::assert_snapshot!(told(&seen, &Wish { given: given(&changed), prune: true, ..Wish::default() }));
}

#[test]
fn roles_follow_leadership_and_one_line_says_so() {
    let mut world = at_work(&[], 0);
    world[12].1 = record("h2-c-db2", &[], 0);
    world[0].1 = minion("h1", "h2");
    world[1].1 = master("h2");
    world[2].1 = minion("h3", "h2");
    let mut file = three();
    file.push(("h4-c-db4", minion("h4", "h1")));
    let swapped = told(&seen(&world), &Wish { given: given(&file), ..Wish::default() });
    let moved = told(&seen(&world), &Wish { given: given(&file), move_master: true, ..Wish::default() });
    world.push(("controller/leader", json!("x")));
    let office = told(&seen(&world), &Wish { given: given(&three()), move_master: true, ..Wish::default() });
    insta::assert_snapshot!([swapped, moved, office].join("\n---\n"));
}

#[test]
fn what_etcd_holds_against_it_is_told() {
    let mut world = at_work(&[], 0);
    world.push(("locks/c", json!({"operation": "op-7"})));
    world.push(("targets/h9/h3-c-db3", minion("h9", "h1")));
    let seen = seen(&world);
    let renamed =
        json!({"data": {"role": "minion", "port": 1, "master_host": "h1", "master_port": 1, "host": "h8"}});
    let table = [
        told(
            &seen,
            &Wish {
                given: given(&[("h1-d-db1", json!({"data": {"role": "master", "port": 1}}))]),
                ..Wish::default()
            },
        ),
        told(&seen, &Wish { given: given(&[("h2-c-db2", renamed)]), ..Wish::default() }),
        told(&seen, &Wish { given: given(&[("h3-c-db3", minion("h3", "h1"))]), ..Wish::default() }),
        told(&seen, &Wish { delete: ["h1-c-db1".parse().unwrap()].into(), ..Wish::default() }),
        told(&seen, &Wish { delete: ["h2-c-db2".parse().unwrap()].into(), ..Wish::default() }),
        told(
            &seen,
            &Wish {
                given: given(&[(
                    "h2-c-db2",
                    json!({"data": {"role": "minion", "port": 1, "master_host": "h1",
                "master_port": 1, "maintenance": true}}),
                )]),
                ..Wish::default()
            },
        ),
    ];
    insta::assert_snapshot!(table.join("\n---\n"));
}

#[test]
fn a_lost_race_is_told_and_nothing_else_is_written() {
    let seen = seen(&at_work(&[], 0));
    let mut changed = three();
    changed[1].1["data"]["size"] = json!("half");
    let expected = [("h2-c-db2".parse().unwrap(), 1)].into();
    insta::assert_snapshot!(told(&seen, &Wish { given: given(&changed), expected, ..Wish::default() }));
}

#[test]
fn garbage_in_etcd_can_be_replaced_and_disturbs_nobody() {
    let mut world = at_work(&[], 0);
    world[2].1 = json!("{garbage");
    world.push(("leadership/d", json!("[]")));
    let seen = seen(&world);
    assert_eq!(seen.complaints.len(), 2);
    insta::assert_snapshot!(told(&seen, &Wish { given: given(&three()), ..Wish::default() }));
}

#[test]
fn two_documents_of_one_name_are_refused() {
    let mut twice = given(&three());
    twice.extend(given(&three()[..1]));
    insta::assert_snapshot!(told(&seen(&[]), &Wish { given: twice, ..Wish::default() }));
}

#[test]
fn files_are_judged_without_etcd_too() {
    let two = [("rack-1-c-db1", master("rack-1")), ("rack-2-c-db1", master("rack-2"))];
    assert_eq!(judge_files(&given(&two)).len(), 1);
    assert!(judge_files(&given(&three())).is_empty());
}
