//! A connection to an instance's server, as administrator.

use std::time::Duration;

use mysql_async::{Conn, OptsBuilder, SslOpts};
use schemadock_schema::secrets::{ADMIN_USER, Secrets};

use super::locate::Located;
use crate::cli::Failure;

/// How long connecting may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// MySQL: access denied.
const ACCESS_DENIED: u16 = 1045;

/// Where a server is and who is asking; enough to connect again.
pub(in crate::cli) struct Server {
    name: String,
    address: String,
    port: u16,
    /// Newest first; the last one is wrong only where somebody changed it by hand.
    secrets: Vec<Secrets>,
    hint: Option<String>,
}

impl Server {
    /// The server of an instance.
    ///
    /// # Errors
    /// When nobody knows where it is.
    pub(in crate::cli) fn of(instance: &Located, secrets: Vec<Secrets>) -> Result<Server, Failure> {
        let (address, port) = instance.address.clone().ok_or_else(|| {
            Failure::failed(format!("nobody knows where {} is", instance.name)).hint(format!(
                "Host {} is not registered. Is its agent running? `schemadock get hosts` shows those that are.",
                instance.host
            ))
        })?;
        let hint = instance.status.as_ref().map(|status| {
            let message =
                if status.message.is_empty() { String::new() } else { format!(": {}", status.message) };
            format!("Its agent says: {}{message}", status.phase)
        });
        Ok(Server { name: instance.name.to_string(), address, port, secrets, hint })
    }

    /// Connects over TCP and TLS. The server's certificate is its own, made at its first start, and taken unverified.
    ///
    /// # Errors
    /// When it does not answer in time, or turns the administrator away.
    pub(in crate::cli) async fn connect(&self) -> Result<Conn, Failure> {
        let mut refused = None;
        for secrets in &self.secrets {
            let ssl = SslOpts::default()
                .with_danger_accept_invalid_certs(true)
                .with_danger_skip_domain_validation(true);
            let options = OptsBuilder::default()
                .ip_or_hostname(self.address.as_str())
                .tcp_port(self.port)
                .user(Some(ADMIN_USER))
                .pass(Some(secrets.admin.expose()))
                // On this machine the driver would look for a socket, of whatever server.
                .prefer_socket(false)
                .ssl_opts(ssl);
            match tokio::time::timeout(DEADLINE, Conn::new(options)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(mysql_async::Error::Server(why))) if why.code == ACCESS_DENIED => {
                    refused = Some(why.to_string());
                }
                Ok(Err(why)) => return Err(self.unreachable(&plain(&why))),
                Err(_) => return Err(self.unreachable("no answer within 10 s")),
            }
        }
        let why = refused.unwrap_or_default();
        Err(Failure::failed(format!(
            "{} at {}:{} turned {ADMIN_USER} away: {why}",
            self.name, self.address, self.port
        ))
        .hint(
            "Its agent puts the account right again within seconds, unless the instance is in maintenance.",
        ))
    }

    fn unreachable(&self, why: &str) -> Failure {
        let failure = Failure::failed(format!(
            "{} cannot be reached at {}:{}: {why}",
            self.name, self.address, self.port
        ));
        match &self.hint {
            Some(hint) => failure.hint(hint.clone()),
            None => failure,
        }
    }
}

/// An error as people read it: MySQL's number first where there is one.
pub(in crate::cli) fn plain(why: &mysql_async::Error) -> String {
    match why {
        mysql_async::Error::Server(why) => why.to_string(),
        mysql_async::Error::Io(mysql_async::IoError::Io(why)) => why.to_string(),
        mysql_async::Error::Io(why) => why.to_string(),
        mysql_async::Error::Driver(why) => why.to_string(),
        other => other.to_string(),
    }
}
