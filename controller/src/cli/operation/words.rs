//! Operations in words.

use schemadock_schema::ClusterName;
use schemadock_schema::operation::{Operation, OperationState, Request};
use schemadock_schema::target::VariableValue;

use crate::cli::Failure;

/// What is asked, as in "the OPERATION is done".
pub fn describe(request: &Request, clusters: &[ClusterName]) -> String {
    let names: Vec<&str> = clusters.iter().map(ClusterName::as_str).collect();
    let of = if names.is_empty() { "no cluster".to_owned() } else { names.join(", ") };
    match request {
        Request::Create(create) => format!("creation of {of} with {}", replicas(create.replicas)),
        Request::Scale { replicas: wished, .. } => format!("scaling of {of} to {}", replicas(*wished)),
        Request::Switchover { to: Some(to) } => format!("switchover of {of} to {to}"),
        Request::Switchover { to: None } => format!("switchover of {of}"),
        Request::Stop => format!("stop of {of}"),
        Request::Start => format!("start of {of}"),
        Request::Delete => format!("deletion of {of}"),
        Request::Upgrade { image, .. } => format!("upgrade of {of} to {image}"),
        Request::Set { mysql } => {
            let value = |value: &Option<VariableValue>| value.as_ref().map(ToString::to_string);
            let all = mysql.iter().map(|(name, set)| format!("{name}={}", value(set).unwrap_or_default()));
            format!("setting of {} in {of}", all.collect::<Vec<_>>().join(", "))
        }
        Request::Resize { size } => format!("resizing of {of} to {size}"),
        Request::Move { instance, to } => format!("move of {instance} to {to}"),
        Request::Drain { host, evict: false } => format!("drain of masters from {host}"),
        Request::Drain { host, evict: true } => format!("eviction of all members from {host}"),
    }
}

fn replicas(count: u32) -> String {
    match count {
        1 => "1 replica".to_owned(),
        many => format!("{many} replicas"),
    }
}

/// The question before an operation that takes servers away; none for one that can simply be asked for.
pub fn question(request: &Request, clusters: &[ClusterName]) -> Option<String> {
    let names: Vec<&str> = clusters.iter().map(ClusterName::as_str).collect();
    let of = names.join(", ");
    match request {
        Request::Stop => {
            Some(format!("Stop all members of {of}? Nobody can read or write it until `start`."))
        }
        Request::Delete => {
            Some(format!("Take all members of {of} away? Their data are kept on their hosts."))
        }
        _ => None,
    }
}

/// What a finished or held operation has come to: a sentence where all was done.
///
/// # Errors
/// In all other cases, with what to do next (exit code 1).
pub fn outcome(operation: &Operation) -> Result<String, Failure> {
    let what = describe(&operation.request, &operation.clusters);
    let id = &operation.id;
    let told = operation.outcome.as_ref().map(|outcome| format!(": {outcome}")).unwrap_or_default();
    let look = match operation.clusters.first() {
        Some(cluster) => {
            format!("`schemadock topology {cluster}` shows what is, `get events {cluster}` why.")
        }
        None => "`schemadock get events` shows why.".to_owned(),
    };
    let failed = |text: String, hint: String| Err(Failure::failed(text).hint(hint));
    match operation.state {
        OperationState::Done => Ok(format!("{what}: done{told}")),
        OperationState::Undone => {
            let hint = format!("What had been done was taken back; it can be asked for again. {look}");
            failed(format!("{what}: undone{told}"), hint)
        }
        OperationState::Failed => {
            let hint = format!("What was done stays. {look}");
            failed(format!("{what}: failed{told}"), hint)
        }
        OperationState::Cancelled => {
            failed(format!("{what}: cancelled{told}"), format!("It can be asked for again. {look}"))
        }
        OperationState::Held => failed(
            format!("{what}: held, it waits for a person{told}"),
            format!("`schemadock operation continue {id}`, `undo` or `finish`."),
        ),
        OperationState::Queued | OperationState::Running => failed(
            format!("{what}: {}, not over yet", operation.state),
            format!("`schemadock operation wait {id}` waits for its end."),
        ),
    }
}
