//! What the daemon may give to containers beyond what it has itself.
//!
//! Raising the number of open files and lowering `oom_score_adj` need a right (CAP_SYS_RESOURCE) that a daemon in a
//! container or without root lacks. It accepts both and then fails to start the container, in words only; so a
//! container that does nothing tries each, once in the life of the agent.

use std::time::Duration;

use super::super::{ContainerError, Owner};
use super::{Docker, shapes};

/// How long a container that does nothing may take.
const TRIAL: Duration = Duration::from_secs(30);

/// What was found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Freedoms {
    /// Open files may be raised to what a server wants.
    pub(super) nofile: bool,
    /// The kernel may be told to spare a server.
    pub(super) oom: bool,
}

const ALL: Freedoms = Freedoms { nofile: true, oom: true };
const NONE: Freedoms = Freedoms { nofile: false, oom: false };

impl Docker {
    /// Tried out once, whoever asks first; the others wait for it.
    pub(super) async fn freedoms(&self, owner: &Owner, image: &str) -> Result<Freedoms, ContainerError> {
        match self.freedoms.get_or_try_init(|| self.try_all(owner, image)).await {
            // With this image nothing can be found out: the server's own start will say why.
            Err(ContainerError::Image { .. }) => Ok(ALL),
            found => found.copied(),
        }
    }

    async fn try_all(&self, owner: &Owner, image: &str) -> Result<Freedoms, ContainerError> {
        let (nofile, oom) = futures::future::try_join(
            self.try_out(owner, image, Freedoms { oom: false, ..ALL }),
            self.try_out(owner, image, Freedoms { nofile: false, ..ALL }),
        )
        .await?;
        let found = Freedoms { nofile, oom };
        if found == NONE && !self.try_out(owner, image, NONE).await? {
            let why = "not even a container that does nothing starts".to_owned();
            return Err(ContainerError::Image { image: image.to_owned(), why });
        }
        if found != ALL {
            tracing::info!(
                open_files = found.nofile,
                oom_score = found.oom,
                "the Docker daemon lacks the right to raise limits (CAP_SYS_RESOURCE): servers run with its own"
            );
        }
        Ok(found)
    }

    /// Whether a container with these starts.
    async fn try_out(&self, owner: &Owner, image: &str, freedoms: Freedoms) -> Result<bool, ContainerError> {
        let trial = shapes::trial(owner, &self.life, image, freedoms)?;
        match self.run_body(trial, TRIAL).await {
            Ok(_) => Ok(true),
            Err(ContainerError::Refused { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
