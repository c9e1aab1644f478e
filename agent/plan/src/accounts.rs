//! The accounts a server must have, and the statements that make them.

use schemadock_schema::secrets::{ADMIN_USER, AGENT_USER, Password, Secrets, replication_user};

/// An account as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// User.
    pub user: String,
    /// Host part.
    pub host: &'static str,
    /// Password.
    pub password: Password,
    /// What it may do.
    pub kind: AccountKind,
}

/// What an account is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountKind {
    /// The agent: everything, over the unix socket.
    Agent,
    /// The administrator: everything, over TCP with TLS.
    Admin,
    /// The application: all rights on user schemas, none on `mysql` and `sys`.
    Application,
    /// A member that replicates or clones from here.
    Replication,
}

/// What an application may do on user schemas. Neither CONNECTION_ADMIN nor SUPER (L5).
const APPLICATION_RIGHTS: &str = "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, REFERENCES, INDEX, ALTER, \
     CREATE TEMPORARY TABLES, LOCK TABLES, EXECUTE, CREATE VIEW, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE, EVENT, \
     TRIGGER";

/// All accounts of a server: the cluster's three and one for each member that may follow it.
pub fn wanted(secrets: &Secrets, followers: impl IntoIterator<Item = u32>) -> Vec<Account> {
    let mut all = vec![
        Account {
            user: AGENT_USER.to_owned(),
            host: "localhost",
            password: secrets.agent.clone(),
            kind: AccountKind::Agent,
        },
        Account {
            user: ADMIN_USER.to_owned(),
            host: "%",
            password: secrets.admin.clone(),
            kind: AccountKind::Admin,
        },
        Account {
            user: secrets.application.user.clone(),
            host: "%",
            password: secrets.application.password.clone(),
            kind: AccountKind::Application,
        },
    ];
    all.extend(followers.into_iter().map(|server_id| Account {
        user: replication_user(server_id),
        host: "%",
        password: secrets.replication.clone(),
        kind: AccountKind::Replication,
    }));
    all
}

/// A text as an SQL literal.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n"))
}

impl Account {
    /// The statements that make the account or bring it back to what it is to be. To be run with `sql_log_bin=0`:
    /// they hold the password and must reach no other server.
    pub fn statements(&self) -> Vec<String> {
        let who = format!("{}@{}", quote(&self.user), quote(self.host));
        let secret = quote(self.password.expose());
        let require = match self.kind {
            AccountKind::Admin | AccountKind::Replication => "REQUIRE SSL",
            AccountKind::Agent | AccountKind::Application => "REQUIRE NONE",
        };
        let mut all = vec![
            format!("CREATE USER IF NOT EXISTS {who} IDENTIFIED BY {secret} {require}"),
            format!("ALTER USER {who} IDENTIFIED BY {secret} {require} PASSWORD EXPIRE NEVER"),
        ];
        match self.kind {
            AccountKind::Agent | AccountKind::Admin => {
                all.push(format!("GRANT ALL ON *.* TO {who} WITH GRANT OPTION"));
            }
            AccountKind::Application => {
                all.push(format!("GRANT {APPLICATION_RIGHTS} ON *.* TO {who}"));
                all.push(format!("REVOKE {APPLICATION_RIGHTS} ON mysql.* FROM {who}"));
                all.push(format!("REVOKE {APPLICATION_RIGHTS} ON sys.* FROM {who}"));
            }
            AccountKind::Replication => {
                all.push(format!("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {who}"));
                all.push(format!("GRANT CONNECTION_ADMIN, BACKUP_ADMIN ON *.* TO {who}"));
            }
        }
        all
    }
}

/// The statements of a server's first start, one a line, for `init_file`. They leave `gtid_executed` empty, and lock
/// `root@localhost` before the server listens.
pub fn first_start(accounts: &[Account]) -> String {
    let mut lines = vec!["SET SESSION sql_log_bin=0".to_owned()];
    lines.extend(accounts.iter().flat_map(Account::statements));
    lines.push("ALTER USER 'root'@'localhost' ACCOUNT LOCK".to_owned());
    lines.into_iter().map(|line| line + ";\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_survives_every_character() {
        assert_eq!(quote(r"a'b\c"), r"'a\'b\\c'");
    }

    #[test]
    fn the_first_start_locks_root_last_and_is_not_logged() {
        let secrets = Secrets::from_random(|| "p".to_owned(), "00000000");
        let text = first_start(&wanted(&secrets, [7]));
        assert!(text.starts_with("SET SESSION sql_log_bin=0;\n"));
        assert!(text.ends_with("ALTER USER 'root'@'localhost' ACCOUNT LOCK;\n"));
        assert!(text.contains("'schemadock_r7'@'%'"));
        assert!(!text.contains("SUPER"));
    }
}
