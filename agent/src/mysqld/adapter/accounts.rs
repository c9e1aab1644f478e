//! Accounts: seen, made, locked. What changes them is not logged: it is this server's alone.

use schemadock_agent_plan::accounts::{Account, quote};
use schemadock_agent_plan::observed::AccountSeen;

use super::wire::{DEADLINE, Wire, owned, text};
use crate::mysqld::MysqlError;

const WHAT: &str = "an account";

pub(super) async fn list(wire: &mut Wire) -> Result<Vec<AccountSeen>, MysqlError> {
    let sql = "SELECT User, Host, account_locked FROM mysql.user WHERE User LIKE 'schemadock\\_%' OR User LIKE \
               'app\\_%' OR User = 'root'";
    let rows = wire.rows("the accounts", sql, DEADLINE).await?;
    let account = |row| {
        Some(AccountSeen {
            user: owned(row, 0)?,
            host: owned(row, 1)?,
            locked: text(row, 2).as_deref() == Some("Y"),
        })
    };
    Ok(rows.iter().filter_map(account).collect())
}

pub(super) async fn ensure(wire: &mut Wire, account: &Account) -> Result<(), MysqlError> {
    wire.run_unlogged(WHAT, &account.statements(), Some(&account.password)).await
}

/// Replication accounts are for every host.
pub(super) async fn lock(wire: &mut Wire, lock: &[String], unlock: &[String]) -> Result<(), MysqlError> {
    let alter =
        |user: &String, what: &str| format!("ALTER USER IF EXISTS {}@'%' ACCOUNT {what}", quote(user));
    let statements = lock.iter().map(|user| alter(user, "LOCK"));
    let statements: Vec<_> = statements.chain(unlock.iter().map(|user| alter(user, "UNLOCK"))).collect();
    wire.run_unlogged(WHAT, &statements, None).await
}
