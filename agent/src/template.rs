//! A template: a data directory initialised once per image, from which new instances are copied.

use schemadock_agent_plan::config::MOUNT;

use crate::containers::Errand;
use crate::context::{Context, StepError};

/// How long an initialisation may take, in seconds.
const INITIALISE_SECONDS: u64 = 120;

/// Makes the template of an image, or finds it ready; returns the server's version.
///
/// # Errors
/// When the image has no mysqld, an unknown or too old one, or the initialisation fails.
pub async fn make(ctx: &Context, key: &str, image: &str) -> Result<String, StepError> {
    if let Some(version) = ctx.disk.template(key).await? {
        return Ok(version);
    }
    let owner = ctx.owner.borrow().clone().ok_or(StepError::Changed("the fleet"))?;
    let mount = ctx.disk.begin_template(key).await?;
    let errand = |command: Vec<String>| Errand {
        image: image.to_owned(),
        command,
        user: ctx.server_user(),
        mounts: vec![(mount.clone(), MOUNT.to_owned())],
    };
    let told = ctx.containers.run(&owner, &errand(vec!["mysqld".into(), "--version".into()]), 30).await;
    let told = told.map_err(|error| {
        StepError::Refused(format!("{error}; an image with mysqld 8.0.26 or newer on its PATH is expected"))
    })?;
    let version = version_in(&told.output).filter(|version| usable(version)).ok_or_else(|| {
        StepError::Refused(format!(
            "`mysqld --version` of {image} says {:?}; mysqld 8.0.26 or newer is expected",
            told.output.trim()
        ))
    })?;
    let command = [
        "mysqld",
        "--no-defaults",
        "--initialize-insecure",
        "--mysqlx=OFF",
        "--secure-file-priv=NULL",
        "--skip-log-bin",
        "--loose-innodb-redo-log-capacity=8388608",
        &format!("--datadir={MOUNT}/data"),
    ];
    let command = command.iter().map(|part| (*part).to_owned()).collect();
    let end = ctx.containers.run(&owner, &errand(command), INITIALISE_SECONDS).await?;
    if end.code != 0 {
        let line = end.output.lines().find(|line| line.contains("[ERROR]")).or(end.output.lines().last());
        return Err(StepError::Refused(format!(
            "mysqld --initialize-insecure of {image} ended with code {}: {}",
            end.code,
            line.unwrap_or("without a word")
        )));
    }
    ctx.disk.finish_template(key, &version).await?;
    Ok(version)
}

/// `8.4.3` out of `mysqld  Ver 8.4.3 for Linux on x86_64 (…)`.
fn version_in(text: &str) -> Option<String> {
    let rest = text.split("Ver ").nth(1)?;
    let version: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    (!version.is_empty()).then_some(version)
}

/// From 8.0.26 on replication speaks of sources and replicas.
fn usable(version: &str) -> bool {
    let numbers: Vec<u32> = version.split('.').filter_map(|part| part.parse().ok()).collect();
    numbers.as_slice() >= [8, 0, 26].as_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_judged() {
        let version = version_in("/usr/sbin/mysqld  Ver 9.7.4-1 for Linux on x86_64 (Debian)").unwrap();
        assert_eq!(version, "9.7.4");
        assert!(usable("8.0.26") && usable("8.4.0") && usable("9.7.4"));
        assert!(!usable("8.0.25") && !usable("5.7.44") && !usable("10"[..1].as_ref()));
        assert_eq!(version_in("sh: mysqld: not found"), None);
    }
}
