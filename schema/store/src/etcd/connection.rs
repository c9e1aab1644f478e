//! One connection at a time, to the first member that answers: made when it is needed, given up when it fails or meets
//! the deadline, after which the next member is tried.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Error};
use tokio::time::Instant;

use super::failure;
use crate::StoreError;

/// Pings of an open connection. etcd ends connections that ping more often than every 5 s.
const PING_EVERY: Duration = Duration::from_millis(5500);
/// A connection whose ping is not answered for so long is dead.
const PING_ANSWER: Duration = Duration::from_millis(2500);

/// See the module. Clones share the connection.
#[derive(Clone)]
pub(super) struct Connection {
    endpoints: Arc<[String]>,
    shown: Arc<str>,
    deadline: Duration,
    current: Arc<Mutex<Current>>,
    heard: Arc<Mutex<Instant>>,
}

/// Whether a question may be put again to another member when it is not known what became of it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Repeat {
    /// It changes nothing.
    Harmless,
    /// It may have been carried out.
    Never,
}

struct Current {
    /// Goes up with each connection given up, so that one late call does not give up its successor. Says also which
    /// member is tried.
    generation: usize,
    client: Option<Client>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("endpoints", &self.shown)
            .field("deadline", &self.deadline)
            .finish()
    }
}

impl Connection {
    pub(super) fn new(endpoints: &str, deadline: Duration) -> Result<Self, StoreError> {
        let endpoints: Vec<String> =
            endpoints.split(',').map(str::trim).filter(|url| !url.is_empty()).map(str::to_owned).collect();
        if endpoints.is_empty() {
            return Err(StoreError::Address { found: String::new(), why: "no URL is given" });
        }
        for url in &endpoints {
            check_url(url)?;
        }
        Ok(Self {
            shown: endpoints.join(",").into(),
            endpoints: endpoints.into(),
            deadline,
            current: Arc::new(Mutex::new(Current { generation: 0, client: None })),
            heard: Arc::new(Mutex::new(Instant::now())),
        })
    }

    pub(super) fn with_deadline(&self, deadline: Duration) -> Self {
        Self {
            deadline,
            current: Arc::new(Mutex::new(Current { generation: 0, client: None })),
            ..self.clone()
        }
    }

    pub(super) fn endpoints(&self) -> &str {
        &self.shown
    }

    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// One round trip under the deadline. Where nothing is written, all members are tried within it.
    pub(super) async fn call<T, Answering>(
        &self,
        what: &'static str,
        repeat: Repeat,
        ask: impl Fn(Client) -> Answering,
    ) -> Result<T, StoreError>
    where
        Answering: Future<Output = Result<T, Error>>,
    {
        let mut tries = match repeat {
            Repeat::Harmless => self.endpoints.len(),
            Repeat::Never => 1,
        };
        let mut generation = 0;
        let asked = async {
            loop {
                let client;
                (generation, client) = self.client().await?;
                let why = match ask(client).await {
                    Ok(answer) => break Ok(answer),
                    Err(why) => failure::classify(what, &self.shown, self.deadline, why),
                };
                if !is_silence(&why) {
                    break Err(why);
                }
                self.give_up(generation);
                tries -= 1;
                if tries == 0 {
                    break Err(why);
                }
            }
        };
        let ended = tokio::time::timeout(self.deadline, asked).await.unwrap_or_else(|_| {
            self.give_up(generation);
            Err(StoreError::Deadline {
                endpoints: self.shown.to_string(),
                what,
                seconds: self.deadline.as_secs_f64(),
            })
        });
        // An answer that refuses is an answer.
        if !ended.as_ref().is_err_and(is_silence) {
            self.heard();
        }
        ended
    }

    /// Something was heard from etcd just now.
    pub(super) fn heard(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    pub(super) fn last_heard(&self) -> Duration {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// The client at hand, or a new one. Making one sends nothing.
    async fn client(&self) -> Result<(usize, Client), StoreError> {
        let member = {
            let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(client) = &current.client {
                return Ok((current.generation, client.clone()));
            }
            current.generation % self.endpoints.len()
        };
        let options = ConnectOptions::new()
            .with_keep_alive(PING_EVERY, PING_ANSWER)
            // etcd ends connections that ping while nothing is open on them.
            .with_keep_alive_while_idle(false)
            .with_tcp_keepalive(PING_EVERY)
            // Leaves time to try another member.
            .with_connect_timeout(self.deadline / 2)
            .with_require_leader(true);
        let made = Client::connect(&self.endpoints[member..=member], Some(options))
            .await
            .map_err(|why| failure::classify("a connection", &self.shown, self.deadline, why))?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let client = current.client.get_or_insert(made).clone();
        Ok((current.generation, client))
    }

    fn give_up(&self, generation: usize) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.generation == generation {
            current.generation += 1;
            current.client = None;
        }
    }
}

/// Whether nobody answered.
fn is_silence(why: &StoreError) -> bool {
    matches!(why, StoreError::Deadline { .. } | StoreError::Unreachable { .. })
}

/// What can be said of a URL before it is used.
fn check_url(url: &str) -> Result<(), StoreError> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let authority = rest.map(|rest| rest.split('/').next().unwrap_or_default());
    match authority {
        // The password must not be repeated.
        Some(host) if host.contains('@') => Err(StoreError::Address {
            found: "…@…".to_owned(),
            why: "credentials do not belong into a URL",
        }),
        Some("") => Err(StoreError::Address { found: url.to_owned(), why: "it names no host" }),
        Some(_) => Ok(()),
        None => Err(StoreError::Address {
            found: url.to_owned(),
            why: "it begins neither with http:// nor with https://",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusable_urls_are_refused() {
        for url in ["", " , ", "127.0.0.1:2379", "http://", "http://root:secret@127.0.0.1:2379"] {
            let refused = Connection::new(url, Duration::from_secs(1)).unwrap_err();
            assert!(matches!(refused, StoreError::Address { .. }), "{url}: {refused}");
            assert!(!refused.to_string().contains("secret"));
        }
    }
}
