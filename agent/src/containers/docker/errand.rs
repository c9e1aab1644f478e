//! Short-lived containers.

use std::time::Duration;

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{ListContainersOptions, RemoveContainerOptions, StartContainerOptions};

use super::super::{ContainerError, Errand, ErrandEnd, LABEL_ERRAND, LABEL_FLEET, LABEL_HOST, Owner};
use super::{Docker, answer, shapes};

/// Removes an errand's container when its future is dropped half way.
struct Leftover {
    client: bollard::Docker,
    id: Option<String>,
}

impl Drop for Leftover {
    fn drop(&mut self) {
        let (Some(id), Ok(runtime)) = (self.id.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let client = self.client.clone();
        // What fails here is found by `remove_errands` at the next start.
        runtime.spawn(async move { client.remove_container(&id, Some(by_force())).await });
    }
}

fn by_force() -> RemoveContainerOptions {
    RemoveContainerOptions { v: true, force: true, link: false }
}

impl Docker {
    pub(super) async fn run_errand(
        &self,
        owner: &Owner,
        errand: &Errand,
        limit: Duration,
    ) -> Result<ErrandEnd, ContainerError> {
        self.run_body(shapes::errand(owner, &self.life, errand)?, limit).await
    }

    /// Runs a container to its end and removes it, whatever comes.
    pub(super) async fn run_body(
        &self,
        body: ContainerCreateBody,
        limit: Duration,
    ) -> Result<ErrandEnd, ContainerError> {
        let client = self.client("to run an errand").await?;
        let id = self.make(None, body).await?;
        let mut leftover = Leftover { client: client.clone(), id: Some(id.clone()) };
        let end = self.to_its_end(&client, &id, limit).await;
        let removed = self.remove_by_force(&client, &id).await;
        leftover.id = None;
        let end = end?;
        if let Err(error) = removed {
            tracing::warn!(%error, id, "an errand's container was not removed");
        }
        Ok(end)
    }

    async fn to_its_end(
        &self,
        client: &bollard::Docker,
        id: &str,
        limit: Duration,
    ) -> Result<ErrandEnd, ContainerError> {
        let start = client.start_container(id, None::<StartContainerOptions>);
        self.within("to start an errand", self.slow(), start).await?;
        let code = self.ended(id, "for an errand's end", limit).await?;
        let output = answer::tail(&self.text(id, "all").await?);
        Ok(ErrandEnd { code, output })
    }

    async fn remove_by_force(&self, client: &bollard::Docker, id: &str) -> Result<(), ContainerError> {
        let call = client.remove_container(id, Some(by_force()));
        match self.within("to remove an errand", self.slow(), call).await {
            Err(ContainerError::NotFound { .. }) => Ok(()),
            other => other,
        }
    }

    pub(super) async fn sweep_errands(&self, owner: &Owner) -> Result<usize, ContainerError> {
        const WHAT: &str = "for its errands";
        let client = self.client(WHAT).await?;
        let options = ListContainersOptions {
            all: true,
            filters: Some(answer::filters(&[(
                "label",
                &[&format!("{LABEL_HOST}={}", owner.host), LABEL_ERRAND],
            )])),
            ..ListContainersOptions::default()
        };
        let rows = self.within(WHAT, self.deadline, client.list_containers(Some(options))).await?;
        let mut removed = 0;
        for row in rows {
            let label = |name: &str| row.labels.as_ref().and_then(|labels| labels.get(name));
            let ours = label(LABEL_FLEET).is_some_and(|fleet| owner.fleets.contains(fleet));
            let (true, Some(id)) = (ours && label(LABEL_ERRAND) != Some(&self.life), &row.id) else {
                continue;
            };
            self.remove_by_force(&client, id).await?;
            removed += 1;
        }
        Ok(removed)
    }
}
