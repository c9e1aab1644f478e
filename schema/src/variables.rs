//! Server variables that Schemadock owns, or that durability needs.

/// Variables that Schemadock sets by itself; refused in `mysql`. A name that ends with `*` is a prefix.
pub const OWNED: &[(&str, &str)] = &[
    ("super_read_only", "leadership decides who may write"),
    ("read_only", "leadership decides who may write"),
    ("offline_mode", "it is the fence"),
    ("gtid_mode", "replication needs GTIDs"),
    ("enforce_gtid_consistency", "replication needs GTIDs"),
    ("server_id", "it is unique in the fleet and given out in etcd"),
    ("log_bin", "replication needs the binary log"),
    ("log_bin_basename", "replication needs the binary log"),
    ("disable_log_bin", "replication needs the binary log"),
    ("skip_log_bin", "replication needs the binary log"),
    ("log_replica_updates", "any member may have to serve the others"),
    ("log_slave_updates", "any member may have to serve the others"),
    ("relay_log_recovery", "ON throws away transactions that were acknowledged"),
    ("skip_replica_start", "the agent starts replication after its checks"),
    ("skip_slave_start", "the agent starts replication after its checks"),
    ("rpl_semi_sync_*", "durability of the cluster sets it"),
    ("datadir", "the container's mounts decide it"),
    ("socket", "the container's mounts decide it"),
    ("port", "it is a field of the target"),
    ("bind_address", "the host's address decides it"),
    ("plugin_load*", "the plugins needed are loaded from the first start"),
    ("init_file", "accounts are made by it"),
    ("partial_revokes", "the application's account relies on it"),
    ("skip_grant_tables", "it would open the server to everyone"),
    ("persisted_globals_load", "a SET PERSIST would beat the target"),
    ("replicate_same_server_id", "without it a replica can drop what it acknowledged"),
];

/// The settings of `lossless` with their values: overrides are refused unless the cluster is wished `async`.
pub const LOSSLESS: &[(&str, &str)] = &[
    ("sync_binlog", "1"),
    ("innodb_flush_log_at_trx_commit", "1"),
    ("innodb_doublewrite", "ON"),
    ("binlog_error_action", "ABORT_SERVER"),
    ("replica_preserve_commit_order", "ON"),
    ("sync_relay_log", "1"),
];

/// The name of a variable as the server writes it: lower case, underscores, without `loose_`.
pub fn normalise(name: &str) -> String {
    let name = name.trim().to_ascii_lowercase().replace('-', "_");
    name.strip_prefix("loose_").map(str::to_owned).unwrap_or(name)
}

/// Why `name` cannot be set in `mysql`, if it is owned.
pub fn owned_reason(name: &str) -> Option<&'static str> {
    let name = normalise(name);
    // mysqld reads skip_X, disable_X and enable_X as other spellings of X.
    let bare = ["skip_", "disable_", "enable_", "maximum_"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(&name)
        .to_owned();
    OWNED.iter().find_map(|(owned, reason)| {
        let hit = match owned.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix) || bare.starts_with(prefix),
            None => name == *owned || bare == *owned,
        };
        hit.then_some(*reason)
    })
}

/// The value that durability needs, if `name` is one of [`LOSSLESS`].
pub fn lossless_value(name: &str) -> Option<&'static str> {
    let name = normalise(name);
    LOSSLESS.iter().find_map(|(variable, value)| (*variable == name).then_some(*value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owned_variables_are_known_in_every_spelling() {
        for name in [
            "read_only",
            "READ-ONLY",
            "loose-read_only",
            "skip-log-bin",
            "rpl_semi_sync_source_enabled",
            "plugin-load-add",
            "skip_grant_tables",
        ] {
            assert!(owned_reason(name).is_some(), "{name}");
        }
        assert_eq!(owned_reason("max_connections"), None);
        assert_eq!(lossless_value("sync-binlog"), Some("1"));
    }
}
