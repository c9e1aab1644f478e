//! What Docker answers, and how it is asked.

use std::collections::BTreeMap;

use bollard::errors::Error;

use super::super::ContainerError;

/// How much of an output is kept.
const TAIL: usize = 64 * 1024;

/// Filters as Docker wants them. The return type is what bollard's options take.
pub(super) fn filters<M: FromIterator<(String, Vec<String>)>>(all: &[(&str, &[&str])]) -> M {
    all.iter()
        .map(|(name, values)| ((*name).to_owned(), values.iter().map(|&value| value.to_owned()).collect()))
        .collect()
}

/// Labels as Docker wants them.
pub(super) fn labels<M: FromIterator<(String, String)>>(all: BTreeMap<&str, String>) -> M {
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Drops all but the end, now and then.
pub(super) fn keep_tail(text: &mut Vec<u8>) {
    if text.len() > 2 * TAIL {
        text.drain(..text.len() - TAIL);
    }
}

/// The end of an output.
pub(super) fn tail(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[text.len().saturating_sub(TAIL)..]).into_owned()
}

/// An image's name and tag. Without a tag Docker would fetch all of them.
pub(super) fn reference(image: &str) -> (String, String) {
    if image.contains('@') {
        return (image.to_owned(), String::new());
    }
    // A colon before the last slash belongs to the registry's port.
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name.to_owned(), tag.to_owned()),
        _ => (image.to_owned(), "latest".to_owned()),
    }
}

/// Sorts an error by status code, never by its words.
pub(super) fn error(what: &'static str, socket: &str, error: Error) -> ContainerError {
    match error {
        Error::DockerResponseServerError { status_code, message } => match status_code {
            404 => ContainerError::NotFound { what: format!("such thing: {message}") },
            409 => ContainerError::Conflict { why: message },
            status => ContainerError::Refused { what, status, why: message },
        },
        Error::DockerStreamError { error } => ContainerError::Refused { what, status: 200, why: error },
        Error::SocketNotFoundError(_) => ContainerError::Unreachable {
            socket: socket.to_owned(),
            why: "there is no such socket".to_owned(),
        },
        Error::HyperLegacyError { .. } | Error::HyperResponseError { .. } | Error::IOError { .. } => {
            ContainerError::Unreachable { socket: socket.to_owned(), why: root(&error) }
        }
        other => {
            ContainerError::Refused { what, status: 200, why: format!("its answer cannot be read: {other}") }
        }
    }
}

/// The innermost cause: what the layers above it add is noise.
fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_docker_reads_them() {
        for (image, name, tag) in [
            ("mysql", "mysql", "latest"),
            ("mysql:8.4", "mysql", "8.4"),
            ("host:5000/a/mysql", "host:5000/a/mysql", "latest"),
            ("host:5000/a/mysql:8.4", "host:5000/a/mysql", "8.4"),
            ("mysql@sha256:00", "mysql@sha256:00", ""),
        ] {
            assert_eq!(reference(image), (name.to_owned(), tag.to_owned()), "{image}");
        }
    }

    #[test]
    fn the_end_of_a_long_output_is_kept() {
        let mut text = Vec::new();
        for n in 0..40_000 {
            text.extend_from_slice(format!("line {n}\n").as_bytes());
            keep_tail(&mut text);
        }
        assert!(text.len() <= 2 * TAIL);
        assert!(tail(&text).ends_with("line 39999\n"));
        assert_eq!(tail(b"short"), "short");
    }
}
