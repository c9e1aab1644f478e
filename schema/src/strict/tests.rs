use super::*;

fn refusals(text: &str) -> Vec<Refusal> {
    read_file("f.json", text.as_bytes()).expect_err("it should be refused")
}

fn lines(text: &str) -> String {
    refusals(text).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// One document with these fields beside a role and a port.
fn one(fields: &str) -> String {
    format!(r#"{{"h-c-db1": {{"data": {{"role": "master", "port": 7335{fields}}}}}}}"#)
}

const ORIGINAL: &str = r#"{
  "schemadock01-mezzanine-cluster1-db1": { "data": {
    "disabled": false, "role": "master", "port": 7335, "size": "all" } },
  "schemadock02-mezzanine-cluster1-db2": { "data": {
    "master_host": "schemadock01", "master_port": 7335,
    "disabled": false, "role": "minion", "port": 7335, "size": "all" } } }"#;

#[test]
fn the_original_document_is_read_whole() {
    let read = read_file("f.json", ORIGINAL.as_bytes()).unwrap();
    assert_eq!(read.len(), 2);
    assert_eq!(read[0].1.role, Role::Master);
    assert_eq!(read[1].1.source().map(|(host, port)| (host.as_str(), port)), Some(("schemadock01", 7335)));
}

#[test]
fn every_field_is_read() {
    let text = one(
        r#", "disabled": true, "maintenance": true, "promotion": "never", "host": "h", "cluster": "c",
        "image": "mysql:8.4", "size": {"memory": "1GiB", "cpus": 0.5, "disk": 1000},
        "mysql": {"max_connections": 500, "sort_buffer_size": "1M", "event_scheduler": false, "x": 18446744073709551615},
        "master_host": "h2", "master_port": 1, "schemas": ["s1"]"#,
    );
    let target = read_file("f.json", text.as_bytes()).unwrap().remove(0).1;
    insta::assert_json_snapshot!(target);
}

#[test]
fn malformed_json_is_refused_with_line_and_column() {
    insta::assert_snapshot!(
        ["", "{\"a\": }", "{\n  \"a\": {\n", "[1, 2", "{\"a\" 1}", "{} x", "\u{1}", "[]", "7"]
            .iter()
            .map(|text| format!("{text:?}: {}", lines(text)))
            .collect::<Vec<_>>()
            .join("\n")
    );
}

#[test]
fn all_refusals_of_a_file_come_at_once() {
    insta::assert_snapshot!(lines(
        r#"{
        "h-c-db1": {"data": {"role": "primary", "port": 0, "colour": "red", "prot": 1}},
        "h-c-db2": {"data": {"role": "minion", "port": 70000}},
        "h-c-db3": {"data": {"role": "minion", "port": "7335", "master_host": "H!", "master_port": 7335.5}},
        "h-c-db4": {"role": "master"},
        "h-c-db5": {"data": {}, "data": []},
        "db6": {"data": {"role": "master", "port": 1}},
        "H_c_db7": {"data": {"role": "master", "port": 1, "port": 2}},
        "h-c-db8": 8
    }"#
    ));
}

#[test]
fn wrong_types_and_values_are_refused() {
    let table: Vec<String> = [
        r#", "disabled": "true""#,
        r#", "disabled": 1"#,
        r#", "maintenance": null"#,
        r#", "size": "hlaf""#,
        r#", "size": "4GiB""#,
        r#", "size": 4"#,
        r#", "size": {"memory": "256MiB"}"#,
        r#", "size": {"cpus": 2}"#,
        r#", "size": {"memory": "1GiB", "cpus": 0, "disc": "1GiB"}"#,
        r#", "promotion": "prefered""#,
        r#", "image": """#,
        r#", "image": null"#,
        r#", "master_port": 7335"#,
        r#", "master_host": null"#,
        r#", "host": "a_b", "cluster": 7"#,
        r#", "schemas": []"#,
        r#", "mysql": ["max_connections"]"#,
        r#", "mysql": {"read_only": true, "sync-binlog2": [], "a b": 1, "x": "1\nskip-grant-tables"}"#,
        r#", "mysql": {"max_connections": 1, "max-connections": 2}"#,
    ]
    .iter()
    .map(|fields| format!("{fields}\n    {}", lines(&one(fields)).replace('\n', "\n    ")))
    .collect();
    insta::assert_snapshot!(table.join("\n"));
}

#[test]
fn every_owned_variable_is_refused_by_name() {
    for (name, _) in crate::variables::OWNED {
        let name = name.trim_end_matches('*');
        let found = refusals(&one(&format!(r#", "mysql": {{"{name}": 1}}"#)));
        assert_eq!(found[0].path.as_deref(), Some(format!("h-c-db1.data.mysql.{name}").as_str()));
        assert!(found[0].hint.is_some());
    }
}

#[test]
fn a_name_that_cannot_be_read_needs_host_and_cluster() {
    let with = r#"{"db1": {"data": {"role": "master", "port": 1, "host": "h", "cluster": "c"}}}"#;
    assert!(read_file("f.json", with.as_bytes()).is_ok());
    let without = r#"{"db1": {"data": {"role": "master", "port": 1, "host": "h"}}}"#;
    assert!(read_file("f.json", without.as_bytes()).is_err());
}

#[test]
fn nothing_panics_whatever_is_written() {
    let text = ORIGINAL.as_bytes();
    for at in 0..text.len() {
        for byte in [b'"', b'{', b'}', b',', b'9', b'-', 0xff] {
            let mut changed = text.to_vec();
            changed[at] = byte;
            let _ = read_file("f.json", &changed);
        }
        let _ = read_file("f.json", &text[..at]);
    }
    let _ = read_file("f.json", "[".repeat(100_000).as_bytes());
}
