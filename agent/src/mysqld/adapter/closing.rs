//! `super_read_only`: a statement that may wait, and must not leave writes blocked behind it.

use std::time::Duration;

use super::wire::{DEADLINE, Wire, number};
use crate::mysqld::MysqlError;

const WHAT: &str = "super_read_only";

/// While it waits for a `LOCK TABLES` or a commit, the variable reads 1 already and every other write waits behind it.
/// So it is killed from a second session when the deadline passes; and the server gives it up by itself a little later
/// (`lock_wait_timeout`, whole seconds), should nobody be left to kill it, or no place for a second session.
pub(super) async fn switch_on(wire: &mut Wire, deadline: Duration) -> Result<(), MysqlError> {
    let patience = deadline.as_secs() + 2;
    let sql = format!("SET SESSION lock_wait_timeout = {patience}, GLOBAL super_read_only = ON");
    let (id, address) = (wire.id(), wire.address());
    let given_up = {
        let statement = wire.run(WHAT, &sql, deadline + 2 * DEADLINE);
        tokio::pin!(statement);
        match tokio::time::timeout(deadline, &mut statement).await {
            Ok(ended) => ended,
            Err(_) => {
                let kill = async {
                    let mut other = address.connect(DEADLINE).await?;
                    other.run(WHAT, &format!("KILL QUERY {id}"), DEADLINE).await
                };
                // Whether the kill came too late, or did not arrive, shows in how the statement ends.
                tokio::join!(kill, statement).1
            }
        }
    };
    match given_up {
        Err(error @ MysqlError::Server { .. }) => {
            let row = wire.row(WHAT, "SELECT @@GLOBAL.super_read_only", DEADLINE).await?;
            if number::<u8>(&row, 0) == Some(0) {
                return Err(error);
            }
            let why = format!(
                "it was given up ({error}), and yet the variable is not OFF: another session sets it"
            );
            Err(MysqlError::Answer { what: WHAT, why })
        }
        ended => ended,
    }
}
