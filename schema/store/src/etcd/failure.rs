//! Errors of the client, by code.

use std::error::Error as _;
use std::time::Duration;

use etcd_client::Error;

use crate::StoreError;

// The codes of gRPC.
const DEADLINE_EXCEEDED: i32 = 4;
const NOT_FOUND: i32 = 5;
const OUT_OF_RANGE: i32 = 11;
const UNAVAILABLE: i32 = 14;

/// What an error of the client means.
pub(super) fn classify(what: &'static str, endpoints: &str, deadline: Duration, why: Error) -> StoreError {
    let status = match why {
        Error::GRpcStatus(status) => status,
        Error::InvalidArgs(why) | Error::EndpointError(why) => return StoreError::Refused { what, why },
        other => {
            return StoreError::Unreachable { endpoints: endpoints.to_owned(), why: chain(&other) };
        }
    };
    match status.code() as i32 {
        OUT_OF_RANGE => StoreError::Compacted,
        NOT_FOUND => StoreError::LeaseNotFound,
        DEADLINE_EXCEEDED => {
            StoreError::Deadline { endpoints: endpoints.to_owned(), what, seconds: deadline.as_secs_f64() }
        }
        // Without a leader, or while it changes, etcd answers this; so does the client that cannot connect.
        UNAVAILABLE => StoreError::Unreachable { endpoints: endpoints.to_owned(), why: reason(&status) },
        // What the transport made up has a source, what etcd sent has none.
        _ if status.source().is_some() => {
            StoreError::Unreachable { endpoints: endpoints.to_owned(), why: reason(&status) }
        }
        _ => StoreError::Refused { what, why: status.message().to_owned() },
    }
}

/// The innermost words of the transport, which name the cause, or else etcd's own.
fn reason(status: &(impl std::error::Error + ?Sized)) -> String {
    match status.source() {
        Some(source) => chain(source),
        None => status.to_string(),
    }
}

/// An error and all that caused it.
fn chain(top: &dyn std::error::Error) -> String {
    let mut said = top.to_string();
    let mut below = top.source();
    while let Some(cause) = below {
        let words = cause.to_string();
        if !said.ends_with(&words) {
            said = format!("{said}: {words}");
        }
        below = cause.source();
    }
    said
}
