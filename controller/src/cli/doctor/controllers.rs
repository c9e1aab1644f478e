//! Copies of the controller, and who of them is in office.

use schemadock_schema::keys::Keys;
use serde_json::Value;

use super::Finding;
use crate::cli::seen::Seen;
use crate::cli::view::plain;

/// What there is to say of them. Databases and agents go on without any, so nothing here must be mended at once.
pub(super) fn look(keys: &Keys, seen: &Seen) -> Vec<Finding> {
    let copies = plain::controllers(keys, seen);
    let mut findings = Vec::new();
    let here = |copy: &Value| format!("{} on {}", text(&copy["id"]), text(&copy["host"]));
    match copies.iter().find(|copy| copy["leader"] == true) {
        Some(leader) => {
            let others = match copies.len() - 1 {
                0 => "no other copy stands by".to_owned(),
                1 => "1 copy stands by".to_owned(),
                many => format!("{many} copies stand by"),
            };
            findings.push(Finding::ok("controller", format!("{} is in office; {others}", here(leader))));
        }
        None if seen.controller.is_some() => {
            let found = "somebody is in office who has not made himself known".to_owned();
            let hint = "a copy that has just ended is replaced within seconds; look again";
            findings.push(Finding::advice("controller", found, "a copy that is known", hint));
        }
        None if seen.clusters().is_empty() => {}
        None => findings.push(Finding::advice(
            "controller",
            match copies.len() {
                0 => "none runs".to_owned(),
                many => format!("{many} run, but none is in office"),
            },
            "one in office: without it databases go on, but no operation and no change of master",
            "start schemadock-controller on one machine or more (its log says what it waits for)",
        )),
    }
    let version = env!("CARGO_PKG_VERSION");
    for copy in copies.iter().filter(|copy| copy["version"] != version) {
        findings.push(Finding::advice(
            "controller",
            format!("{} is version {}", here(copy), text(&copy["version"])),
            &format!("version {version}, as this program"),
            "upgrade the older one",
        ));
    }
    findings
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::fixture::{at_work, keys, seen};

    #[test]
    fn whoever_is_in_office_is_named_and_nobody_is_advice() {
        let copy = |id: &str, version: &str| json!({"id": id, "host": "m1", "pid": 7, "version": version, "since": "2026-01-02T03:04:05Z"});
        let told = |more: Vec<(&'static str, Value)>| {
            let mut world = at_work(&[], 0);
            world.extend(more);
            let findings = look(&keys(), &seen(&world)).into_iter();
            let lines = findings.map(|finding| format!("{:?}: {}", finding.level, finding.found));
            lines.collect::<Vec<_>>()
        };
        assert_eq!(told(vec![]), ["Advice: none runs"]);
        let (one, two) = (copy("k1", env!("CARGO_PKG_VERSION")), copy("k2", "0.0.1"));
        assert_eq!(told(vec![("controllers/k1", one.clone())]), ["Advice: 1 run, but none is in office"]);
        let both = vec![("controllers/k1", one), ("controllers/k2", two), ("controller/leader", json!("k1"))];
        assert_eq!(
            told(both),
            ["Ok: k1 on m1 is in office; 1 copy stands by", "Advice: k2 on m1 is version 0.0.1"]
        );
        assert!(look(&keys(), &seen(&[])).is_empty(), "an empty fleet needs none");
    }
}
