//! The server's configuration file.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use schemadock_schema::size::{GIB, POOL_CHUNK};
use schemadock_schema::variables::LOSSLESS;

use crate::desired::Desired;

/// Where the instance's directory is mounted in its container.
pub const MOUNT: &str = "/schemadock";
/// Where its run directory (socket) is mounted.
pub const RUN_MOUNT: &str = "/schemadock-run";
/// Name of the socket in the run directory.
pub const SOCKET: &str = "mysqld.sock";

/// Settings that are the same on every server, with the values that the server itself shows for them.
/// Checked after every start.
const FIXED: &[(&str, &str)] = &[
    ("gtid_mode", "ON"),
    ("enforce_gtid_consistency", "ON"),
    ("log_replica_updates", "ON"),
    ("binlog_format", "ROW"),
    ("relay_log_recovery", "OFF"),
    ("skip_replica_start", "ON"),
    ("skip_name_resolve", "ON"),
    ("partial_revokes", "ON"),
    ("rpl_semi_sync_source_wait_point", "AFTER_SYNC"),
    ("rpl_semi_sync_source_wait_no_replica", "ON"),
    ("rpl_semi_sync_source_timeout", "1000000000000000000"),
];

/// Settings that are in the file and cannot be asked for, or whose shown value differs from what is written.
const UNASKED: &[(&str, &str)] = &[
    ("persisted_globals_load", "OFF"),
    ("replicate_same_server_id", "ON"),
    // Some builds come without that plugin.
    ("loose_mysqlx", "OFF"),
    ("secure_file_priv", "NULL"),
    // Containers may not set a memory policy; each failing attempt costs a start 0.12 s a chunk of the pool.
    ("loose_innodb_numa_interleave", "OFF"),
];

/// Whether scheduled events run: set by who opens a server, unless `mysql` says it.
pub const EVENT_SCHEDULER: &str = "event_scheduler";

/// Defaults that `mysql` may override.
const DEFAULTS: &[(&str, &str)] = &[
    ("binlog_expire_logs_seconds", "259200"),
    ("disabled_storage_engines", "MyISAM,MEMORY,CSV,ARCHIVE,BLACKHOLE,FEDERATED,EXAMPLE"),
    ("replica_net_timeout", "10"),
    // Events run on the master alone; its agent turns them on.
    (EVENT_SCHEDULER, "OFF"),
];

/// What trims performance_schema on servers below 1 GiB.
const TRIMMED: &[(&str, &str)] = &[
    ("performance_schema_digests_size", "200"),
    ("performance_schema_events_statements_history_long_size", "0"),
    ("performance_schema_events_stages_history_long_size", "0"),
    ("performance_schema_events_waits_history_long_size", "0"),
    ("performance_schema_events_transactions_history_long_size", "0"),
    ("performance_schema_max_memory_classes", "0"),
    ("table_definition_cache", "400"),
    ("table_open_cache", "400"),
];

/// The server's file, in order, and what of it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    options: Vec<(String, String)>,
    /// Variables as the running server is to show them.
    pub verified: BTreeMap<String, String>,
}

/// How the server is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// For the first time: the accounts are made by an init file.
    First,
    /// Again.
    Again,
}

impl ServerConfig {
    /// The file of a server.
    pub fn of(desired: &Desired, server_id: u32, start: Start) -> ServerConfig {
        let mut options: Vec<(String, String)> = Vec::new();
        let mut verified = BTreeMap::new();
        let mut put = |name: &str, value: &str| {
            options.retain(|(own, _)| own != name);
            options.push((name.to_owned(), value.to_owned()));
        };
        put("datadir", &format!("{MOUNT}/data"));
        put("socket", &format!("{RUN_MOUNT}/{SOCKET}"));
        put("pid_file", &format!("{RUN_MOUNT}/mysqld.pid"));
        put("bind_address", &desired.address);
        put("port", &desired.port.to_string());
        put("server_id", &server_id.to_string());
        put("report_host", &desired.address);
        put("report_port", &desired.port.to_string());
        put("log_bin", "binlog");
        put("relay_log", "relay");
        // L1: every server starts closed; only the agent lifts any of these.
        for name in ["offline_mode", "read_only", "super_read_only"] {
            put(name, "ON");
        }
        put("rpl_semi_sync_source_enabled", "OFF");
        put("rpl_semi_sync_replica_enabled", "OFF");
        if start == Start::First {
            put("init_file", &format!("{MOUNT}/init.sql"));
        }
        for (name, value) in UNASKED {
            put(name, value);
        }
        for (name, value) in FIXED.iter().chain(LOSSLESS) {
            put(name, value);
            verified.insert((*name).to_owned(), (*value).to_owned());
        }
        for (name, value) in DEFAULTS {
            put(name, value);
        }
        if desired.limits.memory < GIB {
            for (name, value) in TRIMMED {
                put(name, value);
            }
        }
        put("innodb_buffer_pool_size", &desired.buffer_pool.to_string());
        // At most 1,000 chunks are advised; the unit is fixed at the start, so it changes with the size only rarely.
        if desired.buffer_pool <= 16 * GIB {
            put("innodb_buffer_pool_chunk_size", &POOL_CHUNK.to_string());
        }
        for (name, value) in &desired.mysql {
            put(name, value);
            // An override of a setting of lossless reaches this place only where the cluster is wished async.
            if let Some(checked) = verified.get_mut(name) {
                checked.clone_from(value);
            }
        }
        verified.insert("server_id".to_owned(), server_id.to_string());
        verified.insert("port".to_owned(), desired.port.to_string());
        ServerConfig { options, verified }
    }

    /// The value in the file.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// All options in order.
    pub fn options(&self) -> impl Iterator<Item = (&str, &str)> {
        self.options.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The file's text. It holds no secret.
    pub fn render(&self) -> String {
        let mut text = String::from("# Written by schemadock-agent; edit the target instead.\n[mysqld]\n");
        for plugin in ["semisync_source.so", "semisync_replica.so", "mysql_clone.so"] {
            let name = match plugin {
                "semisync_source.so" => "rpl_semi_sync_source",
                "semisync_replica.so" => "rpl_semi_sync_replica",
                _ => "clone",
            };
            let _ = writeln!(text, "plugin_load_add={name}={plugin}");
        }
        for (name, value) in &self.options {
            let _ = writeln!(text, "{name}={}", quoted(value));
        }
        text
    }
}

/// A value as an option file takes it: anything but plain characters is put in quotes.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:,%@+*".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// The value that was written with [`quoted`].
pub(crate) fn unquoted(text: &str) -> String {
    let Some(inner) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else {
        return text.to_owned();
    };
    let mut value = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        value.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some(escaped) => escaped,
                None => '\\',
            },
            plain => plain,
        });
    }
    value
}

/// Whether a file has the statements of a first start, which lock root.
pub fn is_for_first_start(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("init_file="))
}

/// The settings of a file by name. The statements of a first start are none of them.
pub fn settings_of(text: &str) -> BTreeMap<&str, &str> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| !matches!(*name, "init_file" | "plugin_load_add") && !name.starts_with("loose_"))
        .collect()
}

/// The file with one setting changed, or taken away.
pub fn with_setting(text: &str, name: &str, line: Option<&str>) -> String {
    let prefix = format!("{name}=");
    let mut lines: Vec<&str> = text.lines().filter(|own| !own.starts_with(&prefix)).collect();
    lines.extend(line);
    lines.into_iter().map(|line| format!("{line}\n")).collect()
}
