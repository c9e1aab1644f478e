//! etcd: does it answer, is there room, is history thrown away?

use std::time::Duration;

use etcd_client::{AlarmAction, AlarmType, Client, ConnectOptions, GetOptions};
use schemadock_schema::size::format_bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Finding;
use crate::cli::Context;

/// How long each question may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// etcd's own quota where nothing else is set.
const DEFAULT_QUOTA: u64 = 2 << 30;
/// A history of more revisions than this is not thrown away by anybody.
const LONG_HISTORY: i64 = 100_000;

pub(super) async fn look(ctx: &Context) -> Vec<Finding> {
    let mut findings = Vec::new();
    for url in &ctx.endpoints {
        match tokio::time::timeout(DEADLINE * 3, member(url, &mut findings)).await {
            Ok(Ok(())) => {}
            Ok(Err(etcd_client::Error::GRpcStatus(why))) => findings.push(unreachable(url, why.message())),
            Ok(Err(why)) => findings.push(unreachable(url, &why.to_string())),
            Err(_) => findings.push(unreachable(url, "no answer")),
        }
    }
    findings
}

fn unreachable(url: &str, why: &str) -> Finding {
    Finding::mend(
        "etcd",
        format!("{url} does not answer: {why}"),
        "an etcd that answers",
        "start it, or correct --etcd / SCHEMADOCK_ETCD",
    )
}

async fn member(url: &str, findings: &mut Vec<Finding>) -> Result<(), etcd_client::Error> {
    let options = ConnectOptions::new().with_connect_timeout(DEADLINE).with_timeout(DEADLINE);
    let mut client = Client::connect([url], Some(options)).await?;
    let status = client.status().await?;
    let size = u64::try_from(status.db_size()).unwrap_or(0);
    let quota = match u64::try_from(status.db_size_quota()) {
        Ok(quota) if quota > 0 => quota,
        // Before etcd 3.6 only the metrics tell.
        _ => metric(url, "etcd_server_quota_backend_bytes").await.unwrap_or(DEFAULT_QUOTA),
    };
    let version = status.version();
    let room = format!("{} of {}", format_bytes(size), format_bytes(quota));
    if !new_enough(version) {
        findings.push(Finding::mend(
            "etcd",
            format!("{url} is version {version}"),
            "3.4 or newer",
            "upgrade it",
        ));
    }
    if status.leader() == 0 {
        findings.push(Finding::mend(
            "etcd",
            format!("{url} knows no leader"),
            "a leader",
            "see to its other members",
        ));
    }
    if size > quota / 10 * 8 {
        findings.push(Finding::mend(
            "etcd",
            format!("{url} uses {room}"),
            "less than 80 %; when it is full, nothing can be written",
            "etcdctl compact REVISION, then etcdctl defrag; or a larger --quota-backend-bytes",
        ));
    }
    let alarms = client.alarm(AlarmAction::Get, AlarmType::None, None).await?;
    for alarm in alarms.alarms() {
        let (what, hint) = match alarm.alarm() {
            AlarmType::Nospace => (
                "is full and takes no writes",
                "etcdctl compact REVISION, etcdctl defrag, then etcdctl alarm disarm",
            ),
            AlarmType::Corrupt => {
                ("says that its data are corrupt", "replace that member, or restore a backup")
            }
            AlarmType::None => continue,
        };
        findings.push(Finding::mend("etcd", format!("{url} {what}"), "no alarm", hint));
    }
    let revision = status.header().map_or(0, etcd_client::ResponseHeader::revision);
    if revision > LONG_HISTORY && keeps(&mut client, revision - LONG_HISTORY).await? {
        findings.push(Finding::mend(
            "etcd",
            format!("{url} keeps more than {LONG_HISTORY} old revisions"),
            "old revisions thrown away",
            "start it with --auto-compaction-mode=periodic --auto-compaction-retention=1h",
        ));
    }
    findings.push(Finding::ok("etcd", format!("{url} answers: version {version}, uses {room}")));
    Ok(())
}

/// Whether a revision so old can still be read. etcd says OUT_OF_RANGE of one that is compacted.
async fn keeps(client: &mut Client, revision: i64) -> Result<bool, etcd_client::Error> {
    let options = GetOptions::new().with_revision(revision).with_count_only();
    match client.get("/", Some(options)).await {
        Ok(_) => Ok(true),
        Err(etcd_client::Error::GRpcStatus(status)) if i32::from(status.code()) == OUT_OF_RANGE => Ok(false),
        Err(why) => Err(why),
    }
}

/// gRPC's number for it.
const OUT_OF_RANGE: i32 = 11;

fn new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (3, 4)
}

/// One number of etcd's metrics, where they are served in plain text.
async fn metric(url: &str, name: &str) -> Option<u64> {
    let address = url.strip_prefix("http://")?.trim_end_matches('/');
    let ask = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut text = Vec::new();
        stream.take(4 << 20).read_to_end(&mut text).await.ok()?;
        read_metric(&String::from_utf8_lossy(&text), name)
    };
    tokio::time::timeout(DEADLINE, ask).await.ok().flatten()
}

fn read_metric(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    // Prometheus writes large numbers as 2.147483648e+09.
    let number: f64 = line.trim().parse().ok()?;
    (number > 0.0).then_some(number as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_metrics_are_read() {
        assert!(new_enough("3.4.23") && new_enough("3.10.0") && new_enough("4.0.0"));
        assert!(!new_enough("3.3.27") && !new_enough("?"));
        let text = "# TYPE q gauge\nq_other 1\nq 2.147483648e+09\n";
        assert_eq!(read_metric(text, "q"), Some(2 << 30));
        assert_eq!(read_metric(text, "none"), None);
    }
}
