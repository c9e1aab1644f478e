//! Following an operation to its end, on stderr: a line that changes on a terminal, else a line for each change.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::ProgressBar;
use schemadock_schema::Timestamp;
use schemadock_schema::operation::{Operation, OperationState};
use schemadock_store::Selector;
use tokio::time::{Instant, sleep_until};

use super::telling::{self, Telling};
use crate::cli::follow::Follow;
use crate::cli::{Context, Failure};
use crate::office::hold_office_until;

/// How often what is shown grows older by itself.
const TICK: Duration = Duration::from_secs(1);
/// How long nothing may come before etcd is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(5);
/// How long this process may take to give the office back.
const RESIGN: Duration = Duration::from_secs(5);

/// How an operation is followed.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// This process holds the office meanwhile.
    pub here: bool,
    /// How long; none for as long as it takes.
    pub timeout: Option<Duration>,
    /// Nothing is shown.
    pub silent: bool,
}

/// Follows an operation until it is over, or waits for a person.
///
/// # Errors
/// When it is interrupted or time is up (the operation goes on), and when the operation is gone (exit code 1).
pub async fn until_over(ctx: &Context, id: &str, way: Way) -> Result<Operation, Failure> {
    let store = ctx.store().await?;
    let hold = async {
        if !way.here {
            return std::future::pending().await;
        }
        hold_office_until(store, ctx.keys.clone(), ctx.who.clone(), ctx.now(), id.to_owned()).await.map_err(|why| {
            Failure::failed(format!("this process cannot hold the controller's office: {why}")).hint(format!(
                "Operation {id} is recorded and waits for a controller; `schemadock operation cancel {id}` ends it."
            ))
        })
    };
    let watch = watch(ctx, id, way);
    let deadline = way.timeout.map(|timeout| Instant::now() + timeout);
    let late = async {
        match deadline {
            Some(deadline) => sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(hold, watch, late);
    let mut holds = way.here;
    loop {
        tokio::select! {
            biased;
            ended = &mut watch => {
                if holds {
                    // The office ends with the operation; a moment to give it back in order.
                    let _ = tokio::time::timeout(RESIGN, &mut hold).await;
                }
                return ended;
            }
            held = &mut hold, if holds => {
                holds = false;
                held?;
            }
            () = &mut late => {
                let seconds = way.timeout.unwrap_or_default().as_secs_f64();
                return Err(left(id, way.here, format!("operation {id} is not over within {seconds:.0} s")));
            }
            _ = tokio::signal::ctrl_c() => {
                return Err(left(id, way.here, format!("interrupted; operation {id} was not ended by this")));
            }
        }
    }
}

/// Nobody looks on any more; the operation goes on where somebody carries it out.
fn left(id: &str, here: bool, text: String) -> Failure {
    Failure::failed(text).hint(match here {
        false => format!(
            "It goes on. `schemadock operation wait {id}` looks on again, `operation cancel {id}` asks for its end."
        ),
        true => format!(
            "It goes on once a controller is in office: start schemadock-controller, or `schemadock operation wait \
             {id} --here`. `operation cancel {id}` asks for its end."
        ),
    })
}

async fn watch(ctx: &Context, id: &str, way: Way) -> Result<Operation, Failure> {
    let wanted = vec![Selector::Key(ctx.keys.operation(id)), Selector::Key(ctx.keys.controller_leader())];
    let mut follow = Follow::only(ctx, wanted).await?;
    let mut show = Show::new(way.silent);
    let mut known: Option<(Operation, bool)> = None;
    let mut silent_since = Instant::now();
    loop {
        if let Some(seen) = follow.next(Some(Instant::now() + TICK)).await {
            silent_since = Instant::now();
            let Some(stored) = seen.operations.get(id) else {
                show.end();
                return Err(gone(ctx, id, seen.complaints.values().next()));
            };
            known = Some((stored.value.clone(), way.here || seen.controller.is_some()));
        } else if silent_since.elapsed() > SILENCE {
            silent_since = Instant::now();
            show.reached(ctx.store().await?.read(&[Selector::Key(ctx.keys.operation(id))]).await.is_ok());
        }
        let Some((operation, office)) = &known else { continue };
        show.show(operation, *office, ctx.now());
        if operation.state.is_over() || operation.state == OperationState::Held {
            show.end();
            return Ok(operation.clone());
        }
    }
}

fn gone(ctx: &Context, id: &str, complaint: Option<&String>) -> Failure {
    let key = ctx.keys.operation(id);
    match complaint {
        Some(why) => Failure::failed(format!("{key} cannot be read: {why}"))
            .hint("Was it written by a newer version? Then use that one."),
        None => Failure::failed(format!("operation {id} is gone from etcd"))
            .hint("Somebody has removed its key; `schemadock get events` says what was done of it."),
    }
}

/// What is on the screen.
struct Show {
    told: Telling,
    bar: Option<ProgressBar>,
    silent: bool,
    mute: bool,
}

impl Show {
    fn new(silent: bool) -> Self {
        let bar = (!silent && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { told: Telling::default(), bar, silent, mute: false }
    }

    fn show(&mut self, operation: &Operation, office: bool, now: Timestamp) {
        for line in self.told.news(operation, office, now) {
            self.say(&line);
        }
        if let Some(bar) = &self.bar {
            bar.set_message(telling::line(operation, office, now));
        }
    }

    /// Says once that etcd is away, and once that it is back.
    fn reached(&mut self, reached: bool) {
        if self.mute == reached {
            self.mute = !reached;
            self.say(match reached {
                true => "etcd answers again",
                false => "etcd does not answer; what is shown is what was. Waiting for it",
            });
        }
    }

    fn say(&self, line: &str) {
        match &self.bar {
            _ if self.silent => {}
            Some(bar) => bar.println(line),
            None => anstream::eprintln!("{line}"),
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
