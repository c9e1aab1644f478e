//! A session and how its statements run: each takes a round trip, meets a deadline where the server is frozen or cut off,
//! and ends with the server or the session.

use std::ops::Range;
use std::time::Duration;

use schemadock_agent::mysqld::MysqlError;
use schemadock_agent_plan::observed::ThreadState;
use tokio::time::Instant;

use super::data::Data;
use super::server::Server;
use crate::sim::life::Life;
use crate::sim::world::{Pid, State};

/// A round trip, in microseconds.
const STATEMENT: Range<u64> = 100..2_000;
/// How long an ordinary statement may take.
const DEADLINE: Duration = Duration::from_secs(2);
/// How often something that is waited for is looked at.
pub(super) const STEP: Duration = Duration::from_millis(5);

/// A session of an agent.
pub(super) struct SimSession {
    pub(super) life: Life,
    pub(super) pid: Pid,
    pub(super) id: u64,
    pub(super) endpoint: String,
}

impl Drop for SimSession {
    fn drop(&mut self) {
        let (pid, id) = (self.pid, self.id);
        // What a dropped session was at goes on, until the server notices; a CLONE does not notice.
        self.life.world().change(|state| {
            if let Some(server) = state.servers.get_mut(&pid)
                && server.cloning.as_ref().is_none_or(|cloning| cloning.session != id)
            {
                server.sessions.remove(&id);
            }
        });
    }
}

/// What the server says.
pub(super) fn refused<T>(what: &'static str, number: u16, message: &str) -> Result<T, MysqlError> {
    Err(MysqlError::Server { what, number, message: message.to_owned() })
}

impl SimSession {
    fn gone(&self) -> MysqlError {
        let why = "the connection is broken".to_owned();
        MysqlError::Connection { endpoint: self.endpoint.clone(), why }
    }

    pub(super) fn late(&self, what: &'static str, deadline: Duration) -> MysqlError {
        MysqlError::Deadline { endpoint: self.endpoint.clone(), what, seconds: deadline.as_secs_f64() }
    }

    /// Returns when the server answers.
    async fn answers(&self, what: &'static str, deadline: Duration) -> Result<(), MysqlError> {
        let until = Instant::now() + deadline;
        loop {
            let silent = self.life.world().look(|state| {
                let server = state.servers.get(&self.pid)?;
                let silent = server.paused || state.apart(self.life.host(), &server.host);
                server.sessions.contains_key(&self.id).then_some(silent)
            });
            match silent {
                None => return Err(self.gone()),
                Some(false) => return Ok(()),
                Some(true) if Instant::now() >= until => return Err(self.late(what, deadline)),
                Some(true) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    pub(super) async fn change<T>(
        &mut self,
        what: &'static str,
        effect: impl FnOnce(&mut State, Pid) -> Result<T, MysqlError>,
    ) -> Result<T, MysqlError> {
        self.life.moment().await;
        self.life.pause(&STATEMENT).await;
        self.life.moment().await;
        self.answers(what, DEADLINE).await?;
        let (pid, gone) = (self.pid, self.gone());
        let answer = self.life.world().change(|state| match state.servers.contains_key(&pid) {
            true => effect(state, pid),
            false => Err(gone),
        });
        self.life.moment().await;
        answer
    }

    /// A change of the server alone, which is told.
    pub(super) async fn set(
        &mut self,
        what: &'static str,
        effect: impl FnOnce(&mut Server, &mut Data) -> Result<(), MysqlError>,
    ) -> Result<(), MysqlError> {
        self.change(what, |state, pid| {
            let (server, data) = state.server_and_data(pid);
            let told = format!("{}: {} is told: {what}", server.host, server.instance);
            let answer = effect(server, data);
            state.note(match &answer {
                Ok(()) => told,
                Err(error) => format!("{told} ({error})"),
            });
            answer
        })
        .await
    }

    pub(super) async fn look<T>(
        &mut self,
        what: &'static str,
        look: impl FnOnce(&State, &Server) -> T,
    ) -> Result<T, MysqlError> {
        self.life.moment().await;
        self.life.pause(&STATEMENT).await;
        self.life.moment().await;
        self.answers(what, DEADLINE).await?;
        let found = self.life.world().look(|state| state.servers.get(&self.pid).map(|s| look(state, s)));
        found.ok_or_else(|| self.gone())
    }

    pub(super) async fn await_off(
        &mut self,
        what: &'static str,
        thread: impl Fn(&Server) -> ThreadState,
        deadline: Duration,
    ) -> Result<(), MysqlError> {
        let until = Instant::now() + deadline;
        while self.look(what, |_, server| thread(server)).await? != ThreadState::Off {
            if Instant::now() >= until {
                return Err(MysqlError::Answer { what, why: "it is still ON".to_owned() });
            }
            tokio::time::sleep(STEP).await;
        }
        Ok(())
    }
}

impl State {
    pub(super) fn server_and_data(&mut self, pid: Pid) -> (&mut Server, &mut Data) {
        let server = self.servers.get_mut(&pid).expect("it was just looked up");
        let data = self.data.get_mut(&server.data).expect("data never go away");
        (server, data)
    }
}
