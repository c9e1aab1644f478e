//! The steps that agents would take for a change. Pure, and told from the documents alone: an agent may find more to
//! do (a drift, data of somebody else) and says so in its status.

use schemadock_schema::target::{Role, Target};
use schemadock_schema::{ClusterName, validate};

use super::seen::Seen;
use super::target_plan::{Change, fields};

/// What the agents would do, in order, one sentence each.
pub fn steps(seen: &Seen, cluster: &ClusterName, change: &Change) -> Vec<String> {
    let mut steps = match (&change.before, &change.after) {
        (_, None) => gone(change),
        (None, Some(after)) => new(seen, cluster, change, after),
        (Some(before), Some(after)) => changed(before, after),
    };
    let paused = seen.policies.get(cluster).is_some_and(|policy| policy.value.paused);
    let held = match &change.after {
        None => None,
        Some(after) if after.maintenance => Some("maintenance of the instance".to_owned()),
        Some(_) if paused => Some(format!("pause of {cluster}")),
        Some(_) => None,
    };
    if let Some(held) = held.filter(|_| !steps.is_empty()) {
        steps.insert(0, format!("wait for the end of the {held}"));
    }
    if !seen.alive.contains(&change.host) && !steps.is_empty() {
        steps.insert(0, format!("wait for the agent of {}", change.host));
    }
    steps
}

fn gone(change: &Change) -> Vec<String> {
    vec![
        "close the server and stop it".to_owned(),
        "remove its container".to_owned(),
        format!("set its data aside in retired/{} on {}", change.name, change.host),
    ]
}

fn new(seen: &Seen, cluster: &ClusterName, change: &Change, after: &Target) -> Vec<String> {
    if after.disabled {
        return Vec::new();
    }
    let retired = seen
        .hosts
        .get(&change.host)
        .is_some_and(|host| host.retired.iter().any(|data| data.instance == change.name));
    let leader = seen.leaderships.get(cluster).and_then(|record| validate::leader(&record.value));
    let mut steps = vec![match retired {
        true => "take up its newest retired data".to_owned(),
        false => "copy the template of its image as data directory".to_owned(),
    }];
    steps.push(format!("make a container and start the server on port {}", after.port));
    match (after.source(), leader) {
        (Some((host, port)), _) => {
            steps.push(match retired {
                true => format!("attach it to {host}:{port}, once that is ready"),
                false => format!(
                    "attach it to {host}:{port}, once that is ready; seeded by CLONE where logs are purged"
                ),
            });
        }
        (None, None) => steps.push(format!("claim the leadership of {cluster}, then open for writes")),
        (None, Some(leader)) if *leader == change.name => {
            steps.push("open for writes, as leadership has it".to_owned())
        }
        (None, Some(leader)) => steps.push(format!("wait: leadership names {leader}")),
    }
    steps
}

fn changed(before: &Target, after: &Target) -> Vec<String> {
    let fields = fields(Some(before), Some(after));
    let differs = |name: &str| fields.iter().any(|(path, _, _)| path == name);
    if after.disabled {
        return match before.disabled {
            true => Vec::new(),
            false => vec!["close the server and stop it; container and data stay".to_owned()],
        };
    }
    let mut steps = Vec::new();
    let variables: Vec<&str> = fields.iter().filter_map(|(path, _, _)| path.strip_prefix("mysql.")).collect();
    if !variables.is_empty() {
        steps.push(format!("have mysqld check {}", variables.join(", ")));
    }
    let stops = differs("image") || differs("port");
    if differs("image") {
        let image = after.image.as_deref().unwrap_or("the image of the cluster, or of its agent");
        steps.push(format!("fetch {image} if it is missing"));
    }
    if stops && !before.disabled {
        steps.push("close the server and stop it".to_owned());
    }
    if differs("image") {
        steps.push("make its container anew, on the same data".to_owned());
    } else if differs("size") {
        steps.push("set the limits of the living container, and the buffer pool".to_owned());
    }
    if stops || before.disabled {
        steps.push(format!("start the server on port {}", after.port));
    } else if !variables.is_empty() {
        let names = variables.join(", ");
        steps.push(format!("set {names} on the running server; restart it where it cannot be set live"));
    }
    match (after.role, after.source()) {
        (Role::Minion, Some((host, port)))
            if before.source() != after.source() && before.role == Role::Minion =>
        {
            steps.push(format!("point its replication to {host}:{port}; what it received stays"));
        }
        _ if before.role != after.role => {
            steps.push(format!("wait for a controller to make it {}", after.role))
        }
        (Role::Master, source) if before.source() != source => steps.push(match source {
            Some((host, port)) => format!("follow {host}:{port}, read-only"),
            None => "wait for a controller to make the cut".to_owned(),
        }),
        _ => {}
    }
    if before.maintenance && !after.maintenance {
        steps.push("mend what has drifted meanwhile".to_owned());
    }
    steps
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::fixture::{at_work, keys, master, minion, seen};
    use crate::cli::target_plan::{Given, Wish, plan};

    fn told(change: impl FnOnce(&mut Value)) -> String {
        let mut file =
            json!({"h1-c-db1": master("h1"), "h2-c-db2": minion("h2", "h1"), "h3-c-db3": minion("h3", "h1")});
        change(&mut file);
        let read = schemadock_schema::strict::read_file("f", file.to_string().as_bytes()).unwrap();
        let given =
            read.into_iter().map(|(name, target)| Given { file: "f".to_owned(), name, target }).collect();
        let mut world = at_work(&[], 0);
        world.push(("clusters/d", json!({"paused": true})));
        let seen = seen(&world);
        let planned = plan(&keys(), &seen, &Wish { given, prune: true, ..Wish::default() }).unwrap();
        let one = |(cluster, change): (&ClusterName, &Change)| {
            let steps =
                steps(&seen, cluster, change).iter().map(|step| format!("\n  {step}")).collect::<String>();
            format!("{}{steps}", change.name)
        };
        planned.all().map(one).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn each_change_says_what_it_costs() {
        let set = |field: &'static str, value: Value| {
            told(move |file: &mut Value| file["h2-c-db2"]["data"][field] = value)
        };
        let table = [
            set("mysql", json!({"max_connections": 500})),
            set("image", json!("mysql:9.0")),
            set("port", json!(7)),
            set("size", json!("half")),
            set("disabled", json!(true)),
            set("maintenance", json!(true)),
            set("promotion", json!("never")),
            told(|file| drop(file.as_object_mut().unwrap().shift_remove("h3-c-db3"))),
            told(|file| file["h3-c-db3"]["data"]["master_host"] = json!("h2")),
            told(|file| file["h4-c-db4"] = minion("h4", "h1")),
            told(|file| {
                file["h1-d-db1"] = json!({"data": {"role": "master", "port": 2}});
                file["h2-d-db2"] =
                    json!({"data": {"role": "minion", "port": 2, "master_host": "h1", "master_port": 2}});
            }),
        ];
        insta::assert_snapshot!(table.join("\n---\n"));
    }
}
